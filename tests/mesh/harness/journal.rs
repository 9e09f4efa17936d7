use std::collections::BTreeMap;

/// What a load saw.
#[derive(Clone, Default, Debug)]
pub struct Journal {
    /// Good answers by the name of the service that gave them.
    pub answered: BTreeMap<String, usize>,
    /// Everything else, in words.
    pub failures: Vec<String>,
}

impl Journal {
    pub fn total(&self) -> usize {
        self.answered.values().sum()
    }

    /// Good answers of one service.
    pub fn of(&self, name: &str) -> usize {
        self.answered.get(name).copied().unwrap_or(0)
    }

    pub fn expect_no_failure(&self) {
        let shown = &self.failures[..self.failures.len().min(5)];
        assert!(
            self.failures.is_empty(),
            "{} of {} requests failed, such as {shown:#?}; answered: {:?}",
            self.failures.len(),
            self.failures.len() + self.total(),
            self.answered
        );
    }
}
