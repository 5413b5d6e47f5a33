//! Tests of the accept loop and of connections.
