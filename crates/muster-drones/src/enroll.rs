//! Mode `enroll`: as many enrollments per second as the server accepts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use tokio::task::JoinSet;

use crate::admission::Admission;
use crate::drone::Drone;
use crate::session::{Session, Shared};

/// Enrolls the agents of a share over `in_flight` persistent connections, or over one connection per agent.
pub async fn enroll(shared: Arc<Shared>, numbers: std::ops::Range<u32>, admission: Arc<Admission>, fresh: bool) {
    let next = Arc::new(AtomicU32::new(numbers.start));
    let mut workers = JoinSet::new();
    for worker in 0..admission.in_flight() {
        let (shared, next, admission) = (shared.clone(), next.clone(), admission.clone());
        let (end, number) = (numbers.end, numbers.start.wrapping_add(worker as u32));
        workers.spawn(async move {
            let mut session = Session::new(shared.clone(), number);
            loop {
                // Workers share one counter, so that a slow enrollment does not leave other workers idle.
                let number = next.fetch_add(1, Relaxed);
                if number >= end {
                    return;
                }
                let mut drone = Drone::new(shared.clone(), number);
                // If the worker's session is not used, the drone opens its own, with a handshake.
                let over = (!fresh).then_some(&mut session);
                if let Err(fault) = drone.enroll(over, admission.token(), admission.tags()).await {
                    shared.tally.failed(&format!("enroll: {fault}"));
                }
            }
        });
    }
    while workers.join_next().await.is_some() {}
}
