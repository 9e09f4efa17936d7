//! A network of which one operation fails: preloaded into a proxy (`LD_PRELOAD`), it stands between the proxy and the C library.
//!
//! It looks at connections that have one of two ports on either side, counts their operations, and lets the n-th one fail
//! as [`Control`] says, a file that the scenario and the proxy share. It never shortens an operation that succeeds: after a short
//! one, a program that waits for edges (epoll(7)) waits for the kernel to say more, which knows of nothing.

use std::ffi::{c_char, c_int, c_void};
use std::os::fd::AsRawFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Words that the scenario writes and reads in the file that this variable names.
const VARIABLE: &str = "FAULTY_NETWORK";

#[repr(C)]
struct Control {
    /// Which operation, and how it fails; the numbers are those of the scenario's `Fault`.
    fault: AtomicU32,
    /// So many operations are still to pass, the failing one included; 0 lets all pass.
    left: AtomicU32,
    fired: AtomicU32,
    /// Connections with one of these ports, of the peer or their own.
    ports: [AtomicU32; 2],
}

mod fault {
    pub const CONNECT_REFUSED: u32 = 1;
    pub const CONNECT_TIMES_OUT: u32 = 2;
    pub const READ_RESET: u32 = 3;
    pub const READ_ENDS: u32 = 4;
    pub const READ_LATE: u32 = 5;
    pub const WRITE_BROKEN: u32 = 6;
    pub const WRITE_CUT: u32 = 7;
    pub const WRITE_LATE: u32 = 8;
}

/// What a late operation waits; it holds up its whole worker.
const LATE: Duration = Duration::from_millis(20);

#[repr(C)]
pub struct Slice {
    start: *const u8,
    len: usize,
}

unsafe extern "C" {
    fn dlsym(handle: *mut c_void, symbol: *const c_char) -> *mut c_void;
    fn mmap(at: *mut c_void, len: usize, protection: c_int, flags: c_int, fd: c_int, offset: i64) -> *mut c_void;
    fn getpeername(fd: c_int, address: *mut c_void, len: *mut u32) -> c_int;
    fn getsockname(fd: c_int, address: *mut c_void, len: *mut u32) -> c_int;
    fn shutdown(fd: c_int, how: c_int) -> c_int;
    fn __errno_location() -> *mut c_int;
}

type Connect = unsafe extern "C" fn(c_int, *const c_void, u32) -> c_int;
type Recv = unsafe extern "C" fn(c_int, *mut c_void, usize, c_int) -> isize;
type Send = unsafe extern "C" fn(c_int, *const c_void, usize, c_int) -> isize;
type Writev = unsafe extern "C" fn(c_int, *const Slice, c_int) -> isize;

const EPIPE: c_int = 32;
const ECONNRESET: c_int = 104;
const ETIMEDOUT: c_int = 110;
const ECONNREFUSED: c_int = 111;
const SHUT_RDWR: c_int = 2;
const MSG_NOSIGNAL: c_int = 0x4000;

#[unsafe(no_mangle)]
pub unsafe extern "C" fn connect(fd: c_int, address: *const c_void, len: u32) -> c_int {
    // SAFETY: the caller's address is at least a family and a port long.
    let port = unsafe { port_of(address) };
    match fires(&[fault::CONNECT_REFUSED, fault::CONNECT_TIMES_OUT], || is_watched(port)) {
        Some(fault::CONNECT_REFUSED) => fail(ECONNREFUSED) as c_int,
        Some(_) => fail(ETIMEDOUT) as c_int,
        // SAFETY: the C library's own function, with the caller's arguments.
        None => unsafe { next::<Connect>(c"connect")(fd, address, len) },
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn recv(fd: c_int, to: *mut c_void, len: usize, flags: c_int) -> isize {
    match fires(&[fault::READ_RESET, fault::READ_ENDS, fault::READ_LATE], || is_ours(fd)) {
        Some(fault::READ_RESET) => return fail(ECONNRESET),
        Some(fault::READ_ENDS) => return 0,
        Some(_) => std::thread::sleep(LATE),
        None => {}
    }
    // SAFETY: as in `connect`.
    unsafe { next::<Recv>(c"recv")(fd, to, len, flags) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn send(fd: c_int, from: *const c_void, len: usize, flags: c_int) -> isize {
    let all = [Slice { start: from.cast(), len }];
    match write_fault(fd, &all) {
        Some(failed) => failed,
        // SAFETY: as in `connect`.
        None => unsafe { next::<Send>(c"send")(fd, from, len, flags) },
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn writev(fd: c_int, slices: *const Slice, count: c_int) -> isize {
    // SAFETY: the caller's slices, as many as it says.
    let all = unsafe { std::slice::from_raw_parts(slices, count as usize) };
    match write_fault(fd, all) {
        Some(failed) => failed,
        // SAFETY: as in `connect`.
        None => unsafe { next::<Writev>(c"writev")(fd, slices, count) },
    }
}

fn write_fault(fd: c_int, all: &[Slice]) -> Option<isize> {
    let due = fires(&[fault::WRITE_BROKEN, fault::WRITE_CUT, fault::WRITE_LATE], || is_ours(fd))?;
    if due == fault::WRITE_LATE {
        std::thread::sleep(LATE);
        return None;
    }
    if due == fault::WRITE_CUT {
        send_half(fd, all);
    }
    // SAFETY: a plain call; what it fails with does not matter to a connection that is to break.
    unsafe { shutdown(fd, SHUT_RDWR) };
    Some(fail(EPIPE))
}

fn send_half(fd: c_int, all: &[Slice]) {
    let mut left = all.iter().map(|slice| slice.len).sum::<usize>() / 2;
    for slice in all {
        let len = slice.len.min(left);
        left -= len;
        // SAFETY: a part of the caller's slice.
        unsafe { next::<Send>(c"send")(fd, slice.start.cast(), len, MSG_NOSIGNAL) };
    }
}

/// The fault that is due now, if it is one of these and this is its operation.
fn fires(faults: &[u32], is_ours: impl FnOnce() -> bool) -> Option<u32> {
    let control = control()?;
    let fault = control.fault.load(Ordering::Acquire);
    if !faults.contains(&fault) || control.left.load(Ordering::Acquire) == 0 || !is_ours() {
        return None;
    }
    let last = control.left.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(1));
    if last != Ok(1) {
        return None;
    }
    control.fired.store(1, Ordering::Release);
    Some(fault)
}

fn is_ours(fd: c_int) -> bool {
    type Ask = unsafe extern "C" fn(c_int, *mut c_void, *mut u32) -> c_int;
    let port = |ask: Ask| {
        let mut address = [0u8; 128];
        let mut len = address.len() as u32;
        // SAFETY: an address fits, and its length is said.
        let asked = unsafe { ask(fd, address.as_mut_ptr().cast(), &mut len) };
        // SAFETY: the kernel has filled it in.
        (asked == 0).then(|| unsafe { port_of(address.as_ptr().cast()) })
    };
    port(getpeername).is_some_and(is_watched) || port(getsockname).is_some_and(is_watched)
}

fn is_watched(port: u32) -> bool {
    control().is_some_and(|control| control.ports.iter().any(|watched| watched.load(Ordering::Relaxed) == port))
}

/// Of an IPv4 or IPv6 address; 0 for any other.
unsafe fn port_of(address: *const c_void) -> u32 {
    // SAFETY: every address begins with its family, and those two go on with the port.
    let head: [u8; 4] = unsafe { address.cast::<[u8; 4]>().read_unaligned() };
    match u16::from_ne_bytes([head[0], head[1]]) {
        2 | 10 => u16::from_be_bytes([head[2], head[3]]).into(),
        _ => 0,
    }
}

fn control() -> Option<&'static Control> {
    static CONTROL: OnceLock<Option<&'static Control>> = OnceLock::new();
    *CONTROL.get_or_init(|| {
        let path = std::env::var_os(VARIABLE)?;
        let file = std::fs::File::options().read(true).write(true).open(path).ok()?;
        // SAFETY: a new shared mapping of a file that is as long as `Control`, which is valid as any bytes.
        let at = unsafe { mmap(std::ptr::null_mut(), size_of::<Control>(), 3, 1, file.as_raw_fd(), 0) };
        // SAFETY: mapped above, for as long as the process lives.
        (at as isize != -1).then(|| unsafe { &*at.cast() })
    })
}

/// The C library's function of this name.
unsafe fn next<F: Copy>(name: &std::ffi::CStr) -> F {
    const RTLD_NEXT: *mut c_void = -1isize as *mut c_void;
    // SAFETY: the caller asks for a function that the C library has, by its type.
    unsafe {
        let found = dlsym(RTLD_NEXT, name.as_ptr());
        std::mem::transmute_copy(&found)
    }
}

fn fail(errno: c_int) -> isize {
    // SAFETY: this thread's own variable.
    unsafe { *__errno_location() = errno };
    -1
}
