//! The suite on PostgreSQL.

mod suite;

use muster_store::testing::Cluster;

suite::run_for!(async || tokio::task::spawn_blocking(|| Cluster::shared().fresh()).await.unwrap());
