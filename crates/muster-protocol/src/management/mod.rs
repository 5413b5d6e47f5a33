//! The management API: REST shapes compatible with Kibana's Fleet API (management reference §§1–2).
