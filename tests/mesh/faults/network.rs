//! The scenario's end of `preload.rs`: builds it, and says which operation is to fail.

use std::fs::File;
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// How an operation fails; `preload.rs` has the same numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    ConnectRefused = 1,
    ConnectTimesOut = 2,
    ReadReset = 3,
    /// The peer seems to have closed.
    ReadEnds = 4,
    ReadLate = 5,
    /// Nothing of it goes out.
    WriteBroken = 6,
    /// Half of it goes out, and then the connection breaks.
    WriteCut = 7,
    WriteLate = 8,
}

impl Fault {
    pub const ALL: [Fault; 8] = [
        Fault::ReadReset,
        Fault::ReadEnds,
        Fault::ReadLate,
        Fault::WriteBroken,
        Fault::WriteCut,
        Fault::WriteLate,
        Fault::ConnectRefused,
        Fault::ConnectTimesOut,
    ];
    pub const OF_CONNECTIONS: &[Fault] = Self::ALL.split_at(6).0;

    pub fn is_of_connecting(self) -> bool {
        matches!(self, Fault::ConnectRefused | Fault::ConnectTimesOut)
    }

    /// The operation succeeds after all.
    pub fn is_delay(self) -> bool {
        matches!(self, Fault::ReadLate | Fault::WriteLate)
    }
}

/// The words of `preload.rs`'s `Control`, in their order.
#[derive(Clone, Copy)]
enum Word {
    Fault,
    Left,
    Fired,
    Ports,
}

pub struct Network {
    control: File,
    path: PathBuf,
    library: PathBuf,
}

impl Network {
    pub fn new(folder: &Path) -> Self {
        let path = folder.join("faults");
        let control = File::options()
            .create_new(true)
            .read(true)
            .write(true)
            .open(&path)
            .expect("a file in the scenario's folder");
        control.set_len(64).expect("room for the words");
        Self {
            control,
            path,
            library: library(folder),
        }
    }

    /// Of a process on this network.
    pub fn environment(&self) -> [(&'static str, PathBuf); 2] {
        [
            ("LD_PRELOAD", self.library.clone()),
            ("FAULTY_NETWORK", self.path.clone()),
        ]
    }

    /// The n-th operation of this sort fails, on connections that have one of these addresses at either end.
    pub fn fail_nth(&self, fault: Fault, n: u32, watched: &[SocketAddr]) {
        self.heal();
        for index in 0..2 {
            let port = watched.get(index).map_or(0, SocketAddr::port);
            self.set_at(Word::Ports as u64 + index as u64, port.into());
        }
        self.set(Word::Fault, fault as u32);
        self.set(Word::Fired, 0);
        self.set(Word::Left, n);
    }

    /// From now on nothing fails.
    pub fn heal(&self) {
        self.set(Word::Left, 0);
    }

    pub fn has_failed(&self) -> bool {
        let mut word = [0; 4];
        let at = Word::Fired as u64 * 4;
        self.control
            .read_exact_at(&mut word, at)
            .expect("the file is long enough");
        u32::from_ne_bytes(word) != 0
    }

    fn set(&self, word: Word, value: u32) {
        self.set_at(word as u64, value);
    }

    fn set_at(&self, index: u64, value: u32) {
        self.control
            .write_all_at(&value.to_ne_bytes(), index * 4)
            .expect("the file is there");
    }
}

fn library(folder: &Path) -> PathBuf {
    let library = folder.join("preload.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mesh/faults/preload.rs");
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let built = Command::new(rustc)
        .args(["--edition", "2024", "--crate-type", "cdylib", "-O", "-o"])
        .arg(&library)
        .arg(source)
        .status()
        .expect("the compiler that built this test");
    assert!(built.success(), "preload.rs does not build");
    library
}
