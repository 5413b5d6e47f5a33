//! All targets in one program; `FUZZ_TARGET` names the one to run.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;

static TARGET: LazyLock<muster_fuzz::Target> = LazyLock::new(|| {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    muster_fuzz::target(&name).unwrap_or_else(|| panic!("FUZZ_TARGET is {name:?}, which is no target"))
});

fuzz_target!(|data: &[u8]| TARGET(data));
