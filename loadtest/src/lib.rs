//! The other two sides of the gateway, for tests, benchmarks and the demo: a mock provider with true quotas, and a load
//! generator. Both stay on loopback. Nothing here is in the path of a real call.

#![forbid(unsafe_code)]

pub mod load;
pub mod mock;
