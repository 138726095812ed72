//! crontab(5) expressions: five fields or a nickname, read by croner, searched here.
//!
//! Only the values of the fields are taken from croner. Its search treats lists of hours as elapsed time, may take long
//! before it gives up, and keeps kilobytes for each expression: see `docs/decisions/0009-croner-reads-fields.md`.

use std::str::FromStr;

use chrono::{Datelike, Days, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, Timelike};
use chrono_tz::Tz;
use croner::errors::CronError;

use super::{Weekdays, Window, zone};

/// A parsed expression. Two that match the same local times in the same way are equal, however they are written.
#[derive(Debug, Clone)]
pub struct Cron {
    /// As the operator wrote it, without a zone.
    pub text: String,
    fields: Fields,
}

/// What matches: bit n of a set stands for the value n.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fields {
    minutes: u64,
    hours: u32,
    days: u32,
    months: u16,
    /// Sunday is 0.
    weekdays: u8,
    /// A day is one of `days` or of `weekdays`; otherwise it must be both.
    is_union: bool,
    /// Local times of day rather than a rhythm: see [`Cron::is_fixed`].
    is_fixed: bool,
}

impl PartialEq for Cron {
    fn eq(&self, other: &Self) -> bool {
        self.fields == other.fields
    }
}

impl Eq for Cron {}

/// A field: its name, its values, what may be written in it.
struct Field {
    name: &'static str,
    first: u16,
    last: u16,
    values: &'static str,
    /// Of the values from `first` on.
    names: &'static [&'static str],
    example: &'static str,
}

const FIELDS: [Field; 5] = [
    Field { name: "minute", first: 0, last: 59, values: "0-59", names: &[], example: "`*/5`, `0,30` or `10-20`" },
    Field { name: "hour", first: 0, last: 23, values: "0-23", names: &[], example: "`*/2`, `9,17` or `8-18`" },
    Field { name: "day of month", first: 1, last: 31, values: "1-31", names: &[], example: "`1`, `1,15` or `*/2`" },
    Field {
        name: "month",
        first: 1,
        last: 12,
        values: "1-12 or jan-dec",
        names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
        example: "`1`, `jan,jul` or `3-10`",
    },
    Field {
        name: "day of week",
        first: 0,
        last: 7,
        values: "0-7 or sun-sat (0 and 7 are Sunday)",
        names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
        example: "`1-5`, `mon-fri` or `sun`",
    },
];

const NICKNAMES: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

impl Cron {
    /// Reads five fields or a nickname, without a zone.
    ///
    /// # Errors
    /// A sentence that names the field, the cause and what to write.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let expression = match text.strip_prefix('@') {
            Some(_) => nickname(text)?,
            None => text,
        };
        let parts: Vec<&str> = expression.split_whitespace().collect();
        let parts = <[&str; 5]>::try_from(parts).map_err(|parts| wrong_count(text, &parts))?;
        let mut sets = [0; 5];
        for (i, field) in FIELDS.iter().enumerate() {
            sets[i] = field.read(parts[i])?;
        }
        let begins_with_star = |i: usize| parts[i].starts_with('*');
        let fields = Fields {
            minutes: sets[0],
            hours: sets[1] as u32,
            days: sets[2] as u32,
            months: sets[3] as u16,
            // Seven is Sunday too.
            weekdays: (sets[4] | sets[4] >> 7) as u8 & 0x7f,
            is_union: !begins_with_star(2) && !begins_with_star(4),
            is_fixed: !begins_with_star(1),
        };
        if fields.is_impossible() {
            let (days, months) = (parts[2], parts[3]);
            return Err(format!(
                "{text:?} never fires: no month of `{months}` has a day of `{days}`; write a day that one of them has"
            ));
        }
        Ok(Self { text: text.to_owned(), fields })
    }

    /// Reads an expression that may end with an IANA zone, which is returned beside it (C-22).
    ///
    /// # Errors
    /// As [`Cron::parse`], and when the zone is unknown.
    pub fn parse_with_zone(text: &str) -> Result<(Self, Option<Tz>), String> {
        let text = text.trim();
        let (rest, last) = text.rsplit_once(char::is_whitespace).unwrap_or((text, ""));
        let fields = if text.starts_with('@') { 1 } else { 5 };
        if rest.split_whitespace().count() != fields || !last.starts_with(|c: char| c.is_ascii_alphabetic()) {
            return Ok((Self::parse(text)?, None));
        }
        Ok((Self::parse(rest.trim_end())?, Some(zone::parse(last)?)))
    }

    /// True when it names local times of day: each fires once a day whatever the clocks do. Otherwise, where the hour
    /// begins with `*`, it follows elapsed time: a local time that occurs twice matches twice, one that is left out never.
    #[must_use]
    pub fn is_fixed(&self) -> bool {
        self.fields.is_fixed
    }

    /// The first local time that matches and is not before `from`, up to the year 9999.
    #[must_use]
    pub fn first_local(&self, from: NaiveDateTime) -> Option<NaiveDateTime> {
        let from = match from.second() != 0 || from.nanosecond() != 0 {
            true => from.with_second(0)?.with_nanosecond(0)?.checked_add_signed(TimeDelta::minutes(1))?,
            false => from,
        };
        let today = self.fields.day_from(from.date())?;
        if today == from.date()
            && let Some(time) = self.fields.time_from(from.hour(), from.minute())
        {
            return Some(today.and_time(time));
        }
        let day = match today == from.date() {
            true => self.fields.day_from(today.checked_add_days(Days::new(1))?)?,
            false => today,
        };
        Some(day.and_time(self.fields.time_from(0, 0)?))
    }

    /// False when each of its local times is outside of the window or on one of the days.
    #[must_use]
    pub fn is_ever_within(&self, window: Option<Window>, not_on: Weekdays) -> bool {
        let fields = self.fields;
        let times = (0..24).flat_map(|hour| (0..60).map(move |minute| (hour, minute)));
        let mut times =
            times.filter(|(hour, minute)| fields.hours & 1 << hour != 0 && fields.minutes & 1 << minute != 0);
        let is_inside = |(hour, minute)| {
            NaiveTime::from_hms_opt(hour, minute, 0).is_some_and(|time| window.is_none_or(|w| w.contains(time)))
        };
        let has_day = fields.is_union
            || not_on.complement().iter().any(|day| fields.weekdays & 1 << day.num_days_from_sunday() != 0);
        has_day && times.any(is_inside)
    }

    /// What tells it apart from expressions with other ticks.
    pub(super) fn canonical(&self) -> String {
        let Fields { minutes, hours, days, months, weekdays, is_union, is_fixed } = self.fields;
        format!("{minutes:x} {hours:x} {days:x} {months:x} {weekdays:x} {is_union} {is_fixed}")
    }
}

impl FromStr for Cron {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::parse(text)
    }
}

impl Fields {
    /// True when no month has any of the days.
    fn is_impossible(&self) -> bool {
        let longest = |month: u32| match month {
            2 => 29,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        let has_day = |month: u32| self.days & up_to(longest(month)) != 0;
        !self.is_union && !(1..=12).any(|month| self.months & (1 << month) != 0 && has_day(month))
    }

    /// The first matching day that is not before `from`. A month is decided at once, so that the rarest expression, a
    /// 29 February of one weekday, costs a few hundred steps.
    fn day_from(&self, from: NaiveDate) -> Option<NaiveDate> {
        let (mut year, mut month, mut first) = (from.year(), from.month(), from.day());
        while year <= LAST_YEAR {
            if self.months & (1 << month) != 0 {
                let begin = NaiveDate::from_ymd_opt(year, month, 1)?;
                let days = self.days_of(begin) & !up_to(first - 1);
                if days != 0 {
                    return begin.with_day(days.trailing_zeros());
                }
            }
            first = 1;
            (year, month) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
        }
        None
    }

    /// The matching days of the month that begins then.
    fn days_of(&self, begin: NaiveDate) -> u32 {
        let weekday = begin.weekday().num_days_from_sunday();
        let week = u64::from(self.weekdays);
        let from_first = (week >> weekday | week << (7 - weekday)) & 0x7f;
        let weekdays = (from_first | from_first << 7 | from_first << 14 | from_first << 21 | from_first << 28) << 1;
        let both = if self.is_union { self.days | weekdays as u32 } else { self.days & weekdays as u32 };
        both & up_to(u32::from(begin.num_days_in_month()))
    }

    /// The first matching time of day that is not before that minute.
    fn time_from(&self, hour: u32, minute: u32) -> Option<NaiveTime> {
        let minutes = self.minutes >> minute << minute;
        if self.hours & (1 << hour) != 0 && minutes != 0 {
            return NaiveTime::from_hms_opt(hour, minutes.trailing_zeros(), 0);
        }
        let hours = self.hours >> hour & !1;
        NaiveTime::from_hms_opt(hour + hours.trailing_zeros(), self.minutes.trailing_zeros(), 0)
    }
}

/// Times are written with four digits of the year.
pub(super) const LAST_YEAR: i32 = 9999;

/// The days 1 to `day`.
fn up_to(day: u32) -> u32 {
    ((2u64 << day) - 2) as u32
}

impl Field {
    /// The set of its values.
    fn read(&self, part: &str) -> Result<u64, String> {
        let refused = |cause: &str| {
            let Self { name, values, example, .. } = self;
            format!("{name} `{part}`: {cause}; the {name} is `*` or {values}, such as {example}")
        };
        if let Some(odd) = part.chars().find(|c| !c.is_ascii_alphanumeric() && !"*,-/".contains(*c)) {
            return Err(refused(&format!("`{odd}` is not crontab(5)")));
        }
        // Croner skips it.
        if part.split(',').any(str::is_empty) {
            return Err(refused("a list has an empty place"));
        }
        let numbers = self.numbers(part).map_err(|cause| refused(&cause))?;
        for item in part.split(',') {
            if let Some((from, step)) = item.split_once('/').filter(|(base, _)| *base != "*" && !base.contains('-')) {
                let from = if from.is_empty() { self.first.to_string() } else { from.to_owned() };
                let cause = format!("a step needs a range; write `{from}-{}/{step}` or `*/{step}`", self.last);
                return Err(refused(&cause));
            }
        }
        let mut component = croner::CronComponent::new(self.first, self.last, 0, 0);
        component.parse(&numbers).map_err(|error| match error {
            CronError::ComponentError(cause) => refused(cause.trim_end_matches('.')),
            other => refused(&other.to_string()),
        })?;
        match component.values().into_iter().fold(0, |set, value| set | 1 << value) {
            0 => Err(refused("it is empty")),
            set => Ok(set),
        }
    }

    /// The field with numbers for names. `sun` at the end of a range is 7.
    fn numbers(&self, part: &str) -> Result<String, String> {
        let mut numbers = String::with_capacity(part.len());
        for piece in part.split_inclusive([',', '-', '/']) {
            let word = piece.trim_end_matches([',', '-', '/']);
            if !word.contains(|c: char| c.is_ascii_alphabetic()) {
                numbers.push_str(piece);
                continue;
            }
            let place = self.names.iter().position(|name| name.eq_ignore_ascii_case(word));
            let place = place.ok_or_else(|| match self.names {
                [] => format!("`{word}` is not a number"),
                names => format!("`{word}` is none of {}", names.join(", ")),
            })?;
            let is_last_sunday = place == 0 && self.first == 0 && numbers.ends_with('-');
            let value = if is_last_sunday { self.last } else { self.first + place as u16 };
            numbers.push_str(&value.to_string());
            numbers.push_str(&piece[word.len()..]);
        }
        Ok(numbers)
    }
}

fn nickname(text: &str) -> Result<&'static str, String> {
    if let Some((_, expression)) = NICKNAMES.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)) {
        return Ok(expression);
    }
    if text.eq_ignore_ascii_case("@reboot") {
        return Err("`@reboot` is not a time; write `after: 1s` instead of `cron` to run at each start".to_owned());
    }
    let known: Vec<&str> = NICKNAMES.iter().map(|(name, _)| *name).collect();
    Err(format!("`{text}` is not a nickname; write one of {}, or five fields", known.join(", ")))
}

fn wrong_count(text: &str, parts: &[&str]) -> String {
    let form = "write `minute hour day-of-month month day-of-week`, such as `0 9 * * 1-5`";
    match parts.len() {
        0 => format!("the expression is empty; {form}"),
        6 => format!("{text:?} has six fields, but crontab(5) has neither seconds nor years; {form}"),
        count => format!("{text:?} has {count} of five fields; {form}"),
    }
}
