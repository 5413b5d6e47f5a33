//! The suite on the embedded engine.

mod suite;

use muster_store::SqlStore;

suite::run_for!(async || SqlStore::temporary().unwrap());
