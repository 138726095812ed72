//! Windows of the day and days of the week, in local time.

use std::fmt;

use chrono::{Datelike, Days, NaiveDateTime, NaiveTime, Weekday};

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

const DAYS: [Weekday; 7] =
    [Weekday::Sun, Weekday::Mon, Weekday::Tue, Weekday::Wed, Weekday::Thu, Weekday::Fri, Weekday::Sat];
const NAMES: [&str; 7] = ["sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"];

impl Window {
    /// Reads `HH:MM-HH:MM`; `24:00` ends at midnight.
    ///
    /// # Errors
    /// A sentence that says what to write.
    pub fn parse(text: &str) -> Result<Self, String> {
        let form = "write `HH:MM-HH:MM`, such as `08:00-18:00` or, past midnight, `22:00-06:00`";
        let (from, to) = text.trim().split_once('-').ok_or_else(|| format!("{text:?} is not a window; {form}"))?;
        let time =
            |part: &str| time_of_day(part).ok_or_else(|| format!("`{}` is not a time of day; {form}", part.trim()));
        let window = Self { from: time(from)?, to: if to.trim() == "24:00" { NaiveTime::MIN } else { time(to)? } };
        let is_whole_day = window.from == NaiveTime::MIN && to.trim() == "24:00";
        if window.from == window.to && !is_whole_day {
            return Err(format!("{text:?} begins where it ends; leave it out for the whole day, otherwise {form}"));
        }
        Ok(window)
    }

    /// True when that local time of day is inside.
    #[must_use]
    pub fn contains(&self, time: NaiveTime) -> bool {
        if self.from < self.to { self.from <= time && time < self.to } else { self.from <= time || time < self.to }
    }
}

impl fmt::Display for Window {
    /// `HH:MM-HH:MM`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let to = if self.to == NaiveTime::MIN { "24:00".to_owned() } else { self.to.format("%H:%M").to_string() };
        write!(f, "{}-{to}", self.from.format("%H:%M"))
    }
}

fn time_of_day(text: &str) -> Option<NaiveTime> {
    let (hour, minute) = text.trim().split_once(':')?;
    let is_number = |part: &str| (1..=2).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
    if !is_number(hour) || !is_number(minute) || minute.len() != 2 {
        return None;
    }
    NaiveTime::from_hms_opt(hour.parse().ok()?, minute.parse().ok()?, 0)
}

impl Weekdays {
    /// All seven.
    pub const ALL: Self = Self(0x7f);

    /// The day of that name, in full or three letters in any case, or of that number: 0 and 7 are Sunday (C-21).
    #[must_use]
    pub fn day(text: &str) -> Option<Weekday> {
        let word = text.trim().to_ascii_lowercase();
        let named = NAMES.iter().position(|name| *name == word || name[..3] == word);
        let place = named
            .or_else(|| matches!(word.as_bytes(), [b'0'..=b'7']).then(|| usize::from(word.as_bytes()[0] - b'0')))?;
        Some(DAYS[place % 7])
    }

    /// Adds a day.
    pub fn insert(&mut self, day: Weekday) {
        self.0 |= 1 << day.num_days_from_sunday();
    }

    /// True when the day is in it.
    #[must_use]
    pub fn contains(&self, day: Weekday) -> bool {
        self.0 & (1 << day.num_days_from_sunday()) != 0
    }

    /// True when no day is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0 == 0
    }

    /// The other days.
    #[must_use]
    pub fn complement(self) -> Self {
        Self(!self.0 & Self::ALL.0)
    }

    /// Its days from Sunday on.
    pub fn iter(self) -> impl Iterator<Item = Weekday> {
        DAYS.into_iter().filter(move |day| self.contains(*day))
    }
}

impl FromIterator<Weekday> for Weekdays {
    fn from_iter<I: IntoIterator<Item = Weekday>>(days: I) -> Self {
        let mut set = Self::default();
        days.into_iter().for_each(|day| set.insert(day));
        set
    }
}

impl fmt::Display for Weekdays {
    /// `saturday, sunday`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.iter().map(|day| NAMES[day.num_days_from_sunday() as usize]).collect();
        f.write_str(&names.join(", "))
    }
}

/// The first local time that is not before `from`, inside of the window and on no day of `not_on`.
pub(super) fn first_open(window: Option<Window>, not_on: Weekdays, from: NaiveDateTime) -> Option<NaiveDateTime> {
    let is_open = |at: NaiveDateTime| !not_on.contains(at.weekday()) && window.is_none_or(|w| w.contains(at.time()));
    if is_open(from) {
        return Some(from);
    }
    // A window opens at midnight or where it begins; of eight days at least one has both ahead of `from`.
    let begins = window.map_or(NaiveTime::MIN, |w| w.from);
    let days = (0..=7).filter_map(|ahead| from.date().checked_add_days(Days::new(ahead)));
    days.flat_map(|day| [day.and_time(NaiveTime::MIN), day.and_time(begins)]).find(|at| *at > from && is_open(*at))
}
