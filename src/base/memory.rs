//! Memory that only the start needed.

use std::fs;

/// Lets go of the pages of this program's code that are resident only because starting ran through them: reading
/// configuration, loading certificates, parsing arguments. Code is never written, so a page that is needed again comes
/// back from the page cache, without reading a disk as long as the file is cached.
pub fn release_startup_code() {
    let Ok(maps) = fs::read_to_string("/proc/self/maps") else {
        return;
    };
    let Ok(program) = fs::read_link("/proc/self/exe") else {
        return;
    };
    for line in maps.lines() {
        if let Some((start, end)) = code_of(line, &program.to_string_lossy()) {
            // SAFETY: the range is a mapping of this program's file that is executable and not writable, so no page of it
            // differs from the file; dropping clean file pages changes nothing that can be observed.
            unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_DONTNEED) };
        }
    }
}

/// The range of a line of `maps` that maps this program's code.
fn code_of(line: &str, program: &str) -> Option<(usize, usize)> {
    let mut words = line.split_whitespace();
    let (range, access) = (words.next()?, words.next()?);
    if access != "r-xp" || words.next_back()? != program {
        return None;
    }
    let (start, end) = range.split_once('-')?;
    Some((
        usize::from_str_radix(start, 16).ok()?,
        usize::from_str_radix(end, 16).ok()?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_programs_own_code_is_let_go() {
        let code = "55d000-55e000 r-xp 00001000 fe:00 12 /bin/p";
        assert_eq!(code_of(code, "/bin/p"), Some((0x55d000, 0x55e000)));
        for other in [
            "55d000-55e000 r--p 00001000 fe:00 12 /bin/p",
            "55d000-55e000 rw-p 00001000 fe:00 12 /bin/p",
            "7fd000-7fe000 r-xp 00001000 fe:00 13 /lib/libc.so.6",
            "7fd000-7fe000 r-xp 00000000 00:00 0",
        ] {
            assert_eq!(code_of(other, "/bin/p"), None, "{other}");
        }
    }

    #[test]
    fn code_that_was_let_go_still_runs() {
        release_startup_code();
        assert_eq!("a-b".split_once('-'), Some(("a", "b")));
    }
}
