//! Zones of schedules: the one that an operator names, and the machine's for those that name none.

use chrono_tz::Tz;
use ductile_domain::problem::Problem;
use ductile_domain::schedule::zone;

use crate::findings::Findings;
use crate::paths::Env;
use crate::section::Section;

/// The zone of schedules that name none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Default {
    pub(crate) zone: Tz,
    /// True when UTC stands for a zone that could not be found.
    pub(crate) is_guessed: bool,
}

/// `timezone` of a section; what is no zone is reported.
pub(crate) fn read(keys: &mut Section<'_>, findings: &mut Findings) -> Option<Tz> {
    keys.parsed("timezone", findings, zone::parse)
}

/// The machine's: `TZ` when it names a zone, else what the system is set to.
pub(crate) fn of_the_machine(env: &Env<'_>) -> Default {
    let zone = env("TZ").and_then(|text| named(&text));
    let zone = zone.or_else(|| named(&iana_time_zone::get_timezone().ok()?));
    Default { zone: zone.unwrap_or(Tz::UTC), is_guessed: zone.is_none() }
}

/// The zone of a value of `TZ`: a name, perhaps behind a colon, or a file of the database.
fn named(text: &str) -> Option<Tz> {
    let text = text.trim().trim_start_matches(':');
    let name = text.rsplit_once("/zoneinfo/").map_or(text, |(_, name)| name);
    name.parse().ok()
}

/// A schedule depends on a zone that nobody named and that could not be found.
pub(crate) fn guessed(path: &str) -> Problem {
    Problem::warning("schedule", "it is read in UTC, for the time zone of this system could not be found")
        .at_path(path)
        .hint("set `timezone`, or service.timezone for all schedules")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_of_the_environment_is_a_name_or_a_file() {
        let sydney = Some(Tz::Australia__Sydney);
        for (text, zone) in [
            ("Australia/Sydney", sydney),
            (":Australia/Sydney", sydney),
            ("/usr/share/zoneinfo/Australia/Sydney", sydney),
            ("UTC", Some(Tz::UTC)),
            ("", None),
            ("CET-1CEST,M3.5.0,M10.5.0/3", None),
            ("/etc/localtime", None),
        ] {
            assert_eq!(named(text), zone, "{text:?}");
        }
    }

    #[test]
    fn the_environment_wins_over_the_system() {
        let of = |tz: &'static str| of_the_machine(&move |name: &str| (name == "TZ").then(|| tz.to_owned()));
        assert_eq!(of("Pacific/Apia").zone, Tz::Pacific__Apia);
        assert!(!of("Pacific/Apia").is_guessed);
        // What it does not name is the system's matter, whatever that says.
        assert_eq!(of("nowhere").zone, of_the_machine(&|_| None).zone);
    }
}
