//! Tests that look inside the engine; what every engine must do stands in the suite under `tests/`.

mod faults;
mod plans;
mod recent;
