//! What a session remembers, as plain data: the replies that are owed, prepared statements, parameters.
//! Pure: no sockets, no clock.

pub mod audit;
pub mod bonds;
pub mod channels;
pub mod downstream;
pub mod effects;
mod ending;
pub mod hidden;
pub mod interner;
pub mod luggage;
pub mod outgoing;
pub mod params;
pub mod pipeline;
pub mod prepared;
pub mod queries;
pub mod resets;
pub mod sequences;
pub mod setting;
pub mod state;
pub mod statements;
pub mod text;
pub mod traces;
pub mod unit;
pub mod upstream;

#[cfg(test)]
mod model_tests;
