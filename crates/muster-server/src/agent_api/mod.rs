//! The agent API: the Fleet Server protocol over HTTP.
