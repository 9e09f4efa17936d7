//! Parse the arguments, run, exit with a code that means something.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// jemalloc's settings: memory that is not used is given back within a second, and a thread's cache holds enough for the
/// bursts that a few hundred concurrent streams make. Read by the allocator before `main`.
#[unsafe(export_name = "_rjem_malloc_conf")]
pub static MALLOC_CONF: &[u8; 89] =
    b"dirty_decay_ms:1000,muzzy_decay_ms:0,lg_tcache_nslots_mul:3,tcache_gc_incr_bytes:1048576\0";

fn main() -> ExitCode {
    pillion::cli::main()
}
