//! Several servers over one PostgreSQL database: revocation, moving agents, presence, lost and draining servers.

mod alerts;
mod cluster;
mod currency;
mod lifetimes;
mod live_queries;
mod moving;
mod presence;
