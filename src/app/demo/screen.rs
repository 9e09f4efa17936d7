//! What the demo shows: bars that move on a terminal, a line a second elsewhere.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use super::load::Tally;

const BAR: usize = 40;

pub struct Screen {
    terminal: bool,
    /// Lines of the picture that is on the terminal now.
    drawn: usize,
    frames: usize,
}

impl Screen {
    pub fn new() -> Self {
        Self {
            terminal: std::io::stdout().is_terminal(),
            drawn: 0,
            frames: 0,
        }
    }

    pub fn chapter(&mut self, title: &str) {
        if self.terminal {
            println!("\n\x1b[1m{title}\x1b[0m")
        } else {
            println!("\n# {title}")
        }
    }

    pub fn say(&mut self, text: &str) {
        println!("  {text}");
    }

    pub fn claim(&mut self, text: &str, held: bool) {
        let mark = match (self.terminal, held) {
            (true, true) => "\x1b[32mok\x1b[0m  ",
            (true, false) => "\x1b[31mFAIL\x1b[0m",
            (false, true) => "ok  ",
            (false, false) => "FAIL",
        };
        println!("  {mark} {text}");
    }

    /// A picture of the last moment, and of the chapter so far.
    pub fn frame(&mut self, moment: &Tally, length: Duration, chapter: &Tally) {
        let rate = moment.total() as f64 / length.as_secs_f64();
        if !self.terminal {
            self.frames += 1;
            if self.frames.is_multiple_of(2) {
                let shares = chapter
                    .answered
                    .keys()
                    .map(|name| format!("{name} {:.0} %", chapter.share(name)));
                let shares: Vec<_> = shares.collect();
                println!(
                    "  {rate:>5.0} req/s  {}  failed {}",
                    shares.join("  "),
                    chapter.failed
                );
            }
            return;
        }
        self.erase();
        for name in chapter.answered.keys() {
            let share = moment.share(name);
            let filled = (share / 100.0 * BAR as f64).round() as usize;
            println!(
                "  {name:8} {:█<filled$}{:░<rest$} {share:5.1} %",
                "",
                "",
                rest = BAR - filled.min(BAR)
            );
        }
        println!("  {rate:.0} req/s, {} failed", chapter.failed);
        self.drawn = chapter.answered.len() + 1;
        // A terminal that is gone has nobody to show anything to.
        let _ = std::io::stdout().flush();
    }

    /// The last picture stays.
    pub fn end_frames(&mut self) {
        self.drawn = 0;
    }

    fn erase(&mut self) {
        if self.drawn > 0 {
            print!("\x1b[{}A\x1b[J", self.drawn);
        }
    }
}
