//! What happens to the servers and their database, one after the other.

use std::time::Duration;

use crate::world::{SERVERS, World};

/// Longer than the lease of a server, so that the others take over.
const ASLEEP: Duration = Duration::from_secs(18);
/// While one server sleeps, another one is cut off from the database for so long: less than its lease.
const CUT_OFF: Duration = Duration::from_secs(4);
/// Longer than a server waits before it connects again.
const DATABASE_DOWN: Duration = Duration::from_secs(2);
/// Work goes on undisturbed for so long between two faults.
const PAUSE: Duration = Duration::from_secs(1);

async fn pause() {
    tokio::time::sleep(PAUSE).await;
}

/// One round of all faults.
pub async fn happen(world: &World) {
    pause().await;
    world.kill(0).await;
    pause().await;
    world.start_again(0).await;
    pause().await;
    world.cut_connections().await;
    pause().await;
    world.crash_database(DATABASE_DOWN).await;
    pause().await;
    one_sleeps_while_another_is_cut_off(world).await;
    pause().await;
    world.move_agents_away_from(0).await;
    pause().await;
    upgrade(world).await;
    pause().await;
    world.cut_connections().await;
    pause().await;
}

async fn one_sleeps_while_another_is_cut_off(world: &World) {
    world.stop_process(1);
    let before = (ASLEEP - CUT_OFF) / 2;
    tokio::time::sleep(before).await;
    world.cut_off(2);
    tokio::time::sleep(CUT_OFF).await;
    world.reconnect(2);
    tokio::time::sleep(ASLEEP - CUT_OFF - before).await;
    world.continue_process(1);
}

/// Replaces one server after the other. After the first one, the schema has a migration that the others do not know, and that admits them.
async fn upgrade(world: &World) {
    for server in 0..SERVERS {
        world.upgrade(server).await;
        if server == 0 {
            world.expand_schema().await;
        }
        pause().await;
    }
}
