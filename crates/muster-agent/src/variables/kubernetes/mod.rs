//! The providers `kubernetes`, `kubernetes_secrets` and `kubernetes_leaderelection` (AG §4.2).

pub mod cluster;
mod kube_config;
pub mod leader;
pub mod objects;
pub mod pods;
pub mod secrets;

pub use cluster::Cluster;
