//! The lowest class that gets anywhere: what callers are told, so that they need not send what would be refused.
//!
//! After DAGOR (Zhou and others, "Overload Control for Scaling WeChat Microservices", 2018, sections 4.2.3 and 4.2.4): admission
//! by level, moved by what a window of time has seen, and callers that shed by it themselves. The levels there are thousands
//! of hashed users; here they are the four classes, of which one may be most of the traffic. So a class is shut out only where
//! more important work has taken its place: hardly any of it was let in, and more of what is above it was. A flood of one
//! class alone is the queue's to sort out, and never tells its callers to stay away.
//!
//! It leaves out what callers do with the word, and floors: whoever obeys still sends a few, so that a floor finds somebody waiting.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::Nanos;
use super::band::nanos;
use crate::model::Class;

/// How long a word holds after it was said.
pub const HOLDS: Duration = Duration::from_secs(1);

/// After each of these it is decided anew.
const WINDOW: Duration = Duration::from_millis(250);

/// Windows in a row without a refusal, after which one class more is let in.
const QUIET_WINDOWS: u32 = 2;

/// A class is shut out where less than one in so many of it was let in.
const SHUT_OUT: u64 = 5;

#[derive(Debug)]
pub struct Level {
    /// The least important class that gets anywhere.
    admits: Class,
    /// When the window under way began.
    began: Nanos,
    quiet_windows: u32,
    let_in: [u64; Class::COUNT],
    refused: [u64; Class::COUNT],
}

impl Level {
    pub fn new(now: Nanos) -> Self {
        Self {
            admits: Class::BestEffort,
            began: now,
            quiet_windows: 0,
            let_in: Default::default(),
            refused: Default::default(),
        }
    }

    pub fn let_in(&mut self, class: Class) {
        self.let_in[class as usize] += 1;
    }

    pub fn refused(&mut self, class: Class) {
        self.refused[class as usize] += 1;
    }

    /// Time has passed. What callers are to be told, where a window has ended and there is anything to tell.
    pub fn pass(&mut self, now: Nanos) -> Option<Class> {
        let windows = now.saturating_sub(self.began) / nanos(WINDOW);
        if windows == 0 {
            return None;
        }
        self.began = now;
        let before = self.admits;
        self.decide(u32::try_from(windows).unwrap_or(u32::MAX));
        (before != Class::BestEffort || self.admits != before).then_some(self.admits)
    }

    /// The first of these windows had all that was counted, the others nothing.
    fn decide(&mut self, windows: u32) {
        let refused_any = self.refused.iter().any(|count| *count > 0);
        match self.shut_out() {
            Some(above) => self.admits = self.admits.min(above),
            None if refused_any => {}
            None => self.quiet_windows += 1,
        }
        if refused_any {
            self.quiet_windows = 0;
        }
        self.quiet_windows = self.quiet_windows.saturating_add(windows - 1);
        (self.let_in, self.refused) = Default::default();
        while self.quiet_windows >= QUIET_WINDOWS && self.admits != Class::BestEffort {
            self.quiet_windows -= QUIET_WINDOWS;
            self.admits = below(self.admits);
        }
    }

    /// The class above the most important one that is shut out.
    fn shut_out(&self) -> Option<Class> {
        let mut let_in_above = 0;
        for classes in Class::ALL.windows(2) {
            let [above, class] = [classes[0], classes[1]];
            let_in_above += self.let_in[above as usize];
            let let_in = self.let_in[class as usize];
            let refused = self.refused[class as usize];
            let hardly_any = refused > 0 && let_in * SHUT_OUT < let_in + refused;
            if hardly_any && let_in_above > let_in {
                return Some(above);
            }
        }
        None
    }
}

fn below(class: Class) -> Class {
    let next = class as usize + 1;
    Class::ALL.get(next).copied().unwrap_or(Class::BestEffort)
}

/// The last word on who is let in, which holds for [`HOLDS`]; one word of memory, for many readers.
#[derive(Default, Debug)]
pub struct Word(AtomicU64);

const CLASS_BITS: u32 = 2;

impl Word {
    pub fn say(&self, admits: Class, now: Nanos) {
        let until = now
            .saturating_add(nanos(HOLDS))
            .min(Nanos::MAX >> CLASS_BITS);
        let word = until << CLASS_BITS | admits as u64;
        self.0.store(word, Ordering::Relaxed);
    }

    /// Whether anything was ever said; needs no clock.
    #[inline]
    pub fn is_said(&self) -> bool {
        self.0.load(Ordering::Relaxed) != 0
    }

    /// None where nothing was said, or too long ago.
    #[inline]
    pub fn admits(&self, now: Nanos) -> Option<Class> {
        let word = self.0.load(Ordering::Relaxed);
        if word >> CLASS_BITS <= now {
            return None;
        }
        let class = word & ((1 << CLASS_BITS) - 1);
        Class::ALL.get(class as usize).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Nanos = 1_000_000;
    const SECOND: Nanos = 1_000 * MS;

    /// A level that sees windows like these: let in and refused, by class.
    struct Scene {
        level: Level,
        now: Nanos,
    }

    impl Scene {
        fn new() -> Self {
            Self {
                level: Level::new(0),
                now: 0,
            }
        }

        fn window(&mut self, seen: [(u64, u64); Class::COUNT]) -> Option<Class> {
            for (class, (let_in, refused)) in Class::ALL.into_iter().zip(seen) {
                (0..let_in).for_each(|_| self.level.let_in(class));
                (0..refused).for_each(|_| self.level.refused(class));
            }
            self.now += nanos(WINDOW);
            self.level.pass(self.now)
        }
    }

    #[test]
    fn a_class_whose_place_more_important_work_has_taken_is_told_to_stay_away() {
        let table = [
            ("room for all", [(5, 0), (50, 0), (50, 0), (50, 0)], None),
            (
                "best effort gets nowhere",
                [(5, 0), (50, 0), (50, 0), (0, 9)],
                Some(Class::Batch),
            ),
            (
                "nor does batch, but for its floor",
                [(5, 0), (50, 0), (4, 50), (0, 9)],
                Some(Class::Default),
            ),
            (
                "nor does the default",
                [(50, 0), (1, 50), (0, 0), (0, 0)],
                Some(Class::Critical),
            ),
            (
                "half of batch is let in",
                [(0, 0), (50, 0), (20, 20), (0, 0)],
                None,
            ),
            (
                "a flood of one class has nobody above it",
                [(0, 0), (10, 500), (0, 0), (0, 0)],
                None,
            ),
            (
                "a few above a flood have not displaced it",
                [(3, 0), (10, 500), (0, 0), (0, 0)],
                None,
            ),
            (
                "the most important has nobody above it",
                [(1, 50), (0, 0), (0, 0), (0, 0)],
                None,
            ),
        ];
        for (name, seen, told) in table {
            assert_eq!(Scene::new().window(seen), told, "{name}");
        }
    }

    #[test]
    fn it_comes_back_a_class_at_a_time_after_windows_without_a_refusal() {
        let mut scene = Scene::new();
        let overloaded = [(0, 0), (50, 0), (1, 50), (0, 9)];
        let quiet = [(0, 0), (50, 0), (5, 0), (0, 0)];
        let strained = [(0, 0), (50, 5), (50, 5), (0, 0)];
        assert_eq!(scene.window(overloaded), Some(Class::Default));
        assert_eq!(scene.window(quiet), Some(Class::Default));
        assert_eq!(scene.window(strained), Some(Class::Default), "not in a row");
        assert_eq!(scene.window(quiet), Some(Class::Default));
        assert_eq!(scene.window(quiet), Some(Class::Batch));
        assert_eq!(scene.window(quiet), Some(Class::Batch));
        assert_eq!(scene.window(quiet), Some(Class::BestEffort), "told once");
        assert_eq!(scene.window(quiet), None);
    }

    #[test]
    fn time_without_anything_is_quiet_too() {
        let mut scene = Scene::new();
        scene.window([(0, 0), (50, 0), (1, 50), (0, 9)]);
        scene.now += 10 * SECOND;
        assert_eq!(
            scene.window([(0, 0); Class::COUNT]),
            Some(Class::BestEffort)
        );
    }

    #[test]
    fn within_a_window_nothing_is_decided() {
        let mut level = Level::new(0);
        level.let_in(Class::Default);
        level.refused(Class::Batch);
        assert_eq!(level.pass(nanos(WINDOW) - 1), None);
        assert_eq!(level.pass(nanos(WINDOW)), Some(Class::Default));
    }

    #[test]
    fn a_word_holds_for_a_second_and_the_last_one_counts() {
        let word = Word::default();
        assert_eq!(word.admits(0), None);
        word.say(Class::Critical, 5 * SECOND);
        word.say(Class::Batch, 5 * SECOND);
        assert_eq!(word.admits(6 * SECOND - 1), Some(Class::Batch));
        assert_eq!(word.admits(6 * SECOND), None);
        word.say(Class::Default, Nanos::MAX);
        assert_eq!(word.admits(100 * SECOND), Some(Class::Default));
    }
}
