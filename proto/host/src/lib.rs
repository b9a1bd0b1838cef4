//! What every server of ours shares: listening, TLS and its reload, strict configuration, keys at rest, drain, the
//! system's clock, points in time as people write them, and the generated gRPC stubs.

pub mod stubs;
pub mod metrics;
pub mod logging;
pub mod listen;
pub mod client;
pub mod tls;
mod gathered;
mod company;
pub mod drain;
pub mod keys;
pub mod config;
pub mod files;
pub mod moment;
pub mod clock;

/// Every exchange is some hundreds of small allocations, many of them freed on another thread than their own: measured with
/// 64 exchanges at a time, this allocator takes a fifth of the CPU time off that the C library's needs.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Gives back to the system what was freed more than a second ago. The allocator does that when a thread that allocated ends;
/// a server at rest ends none, and would keep what opening its keys took.
pub fn give_memory_back() -> std::io::Result<()> {
    let thread = std::thread::Builder::new().name("memory".into());
    thread.spawn(|| drop(std::hint::black_box(Box::new(0_u64)))).map(drop)
}
