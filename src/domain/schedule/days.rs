//! Windows of the day and days of the week, in local time.

use chrono::{NaiveTime, Weekday};

/// `only_between`: from one local time of day to another, past midnight when the second is not later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// First minute inside.
    pub from: NaiveTime,
    /// First minute outside.
    pub to: NaiveTime,
}

/// A set of days of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Weekdays(u8);

impl Window {
    /// True when that local time of day is inside.
    #[must_use]
    pub fn contains(&self, time: NaiveTime) -> bool {
        if self.from < self.to { self.from <= time && time < self.to } else { self.from <= time || time < self.to }
    }
}

impl Weekdays {
    /// Adds a day.
    pub fn insert(&mut self, day: Weekday) {
        self.0 |= 1 << day.num_days_from_sunday();
    }

    /// True when the day is in it.
    #[must_use]
    pub fn contains(&self, day: Weekday) -> bool {
        self.0 & (1 << day.num_days_from_sunday()) != 0
    }
}
