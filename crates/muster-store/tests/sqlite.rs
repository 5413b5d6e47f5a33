//! The suite on the embedded engine.

mod suite;

use muster_store::SqliteStore;

suite::run_for!(async || SqliteStore::temporary().unwrap());
