//! What is refused, and the words for it.

use chrono::Weekday;
use ductile_domain::schedule::{Cron, Weekdays, Window, zone};

/// SCH-06: five fields as in crontab(5), and nothing that only some readers know.
#[test]
fn a_refusal_names_the_field_the_cause_and_what_to_write() {
    for (text, words) in [
        ("", vec!["empty", "`0 9 * * 1-5`"]),
        ("* * * *", vec!["4 of five fields"]),
        ("0 */5 * * * *", vec!["six fields", "seconds"]),
        ("0 0 0 1 1 * 2027", vec!["7 of five fields"]),
        ("60 * * * *", vec!["minute `60`", "0-59", "`*/5`"]),
        ("* 24 * * *", vec!["hour `24`", "0-23"]),
        ("* * 0 * *", vec!["day of month `0`", "1-31"]),
        ("* * 32 * *", vec!["day of month `32`"]),
        ("* * * 0 *", vec!["month `0`", "1-12 or jan-dec"]),
        ("* * * 13 *", vec!["month `13`"]),
        ("* * * * 8", vec!["day of week `8`", "0 and 7 are Sunday"]),
        ("5/15 * * * *", vec!["minute `5/15`", "`5-59/15`", "`*/15`"]),
        ("* * 2,5/3 * *", vec!["day of month `2,5/3`", "`5-31/3`"]),
        ("* * * * mon/2", vec!["day of week `mon/2`", "`mon-7/2`"]),
        ("*/0 * * * *", vec!["minute `*/0`"]),
        ("*/ * * * *", vec!["minute `*/`"]),
        ("30-10 * * * *", vec!["minute `30-10`"]),
        ("* * * * fri-mon", vec!["day of week `fri-mon`"]),
        ("* * * dec-feb *", vec!["month `dec-feb`"]),
        ("1-2-3 * * * *", vec!["minute `1-2-3`"]),
        ("1-5/2/2 * * * *", vec!["minute `1-5/2/2`"]),
        ("-5 * * * *", vec!["minute `-5`"]),
        ("5- * * * *", vec!["minute `5-`"]),
        ("/5 * * * *", vec!["minute `/5`"]),
        ("*5 * * * *", vec!["minute `*5`"]),
        ("** * * * *", vec!["minute `**`"]),
        ("*-5 * * * *", vec!["minute `*-5`"]),
        ("1,,2 * * * *", vec!["minute `1,,2`", "empty place"]),
        (",1 * * * *", vec!["minute `,1`", "empty place"]),
        ("1, * * * *", vec!["minute `1,`", "empty place"]),
        ("1.5 * * * *", vec!["minute `1.5`", "`.`"]),
        ("10~20 * * * *", vec!["minute `10~20`", "`~`"]),
        ("99999999999999999999 * * * *", vec!["minute `99999999999999999999`"]),
        ("*/99999999999999999999 * * * *", vec!["minute"]),
        ("x * * * *", vec!["minute `x`", "`x` is not a number"]),
        ("* * * monday *", vec!["month `monday`", "jan, feb"]),
        ("* * * mon *", vec!["month `mon`", "jan, feb"]),
        ("* * * * monday", vec!["day of week `monday`", "sun, mon"]),
        ("* * * * jan", vec!["day of week `jan`"]),
        ("* * L * *", vec!["day of month `L`"]),
        ("* * 15W * *", vec!["day of month `15W`"]),
        ("* * LW * *", vec!["day of month `LW`"]),
        ("* * ? * *", vec!["day of month `?`", "`?` is not crontab(5)"]),
        ("* * * * 5L", vec!["day of week `5L`"]),
        ("* * * * 5#2", vec!["day of week `5#2`", "`#`"]),
        ("* * 1 * +1", vec!["day of week `+1`", "`+`"]),
        ("* * * * ١", vec!["day of week", "is not crontab(5)"]),
        ("@reboot", vec!["`after: 1s`"]),
        ("@every 5m", vec!["`@every 5m` is not a nickname", "@hourly"]),
        ("@dayly", vec!["`@dayly` is not a nickname", "@daily"]),
        ("@daily 5", vec!["is not a nickname"]),
        ("0 0 30 2 *", vec!["never fires", "`30`", "`2`"]),
        ("0 0 31 4,jun,9,11 *", vec!["never fires"]),
        ("0 0 30-31 2 */2", vec!["never fires"]),
    ] {
        let why = Cron::parse(text).expect_err(text);
        for word in words {
            assert!(why.contains(word), "{text}: {word:?} is missing in {why:?}");
        }
    }
}

/// What only seems impossible.
#[test]
fn rare_expressions_are_accepted() {
    for text in ["0 0 29 2 *", "0 0 30 2 1", "0 0 31 2,3 *", "0 0 29-31 2 */2", "0 0 */31 * *", "*/61 * * * *"] {
        Cron::parse(text).expect(text);
    }
}

#[test]
fn expressions_that_mean_the_same_are_equal() {
    for (a, b) in [
        ("@daily", "0 0 * * *"),
        ("0 0 * * sun", "0  0 * * 7"),
        ("0 0 * JAN-MAR *", "00 0 * 1,2,3 *"),
        ("*/30 0 * * *", "0,30 0 * * *"),
    ] {
        assert_eq!(Cron::parse(a).expect(a), Cron::parse(b).expect(b));
    }
    // The same sets, but not the same rule for days or for time changes.
    for (a, b) in [("0 0 1-31 * 1", "0 0 * * 1"), ("0 * * * *", "0 0-23 * * *")] {
        assert_ne!(Cron::parse(a).expect(a), Cron::parse(b).expect(b));
    }
}

/// C-22: a zone may end the expression.
#[test]
fn a_trailing_zone_is_read() {
    let (cron, zone) = Cron::parse_with_zone("0 7 * * * Australia/Sydney").expect("valid");
    assert_eq!((cron.text.as_str(), zone), ("0 7 * * *", Some(chrono_tz::Australia::Sydney)));
    let (cron, zone) = Cron::parse_with_zone(" @daily  UTC ").expect("valid");
    assert_eq!((cron.text.as_str(), zone), ("@daily", Some(chrono_tz::UTC)));
    assert_eq!(Cron::parse_with_zone("0 7 * * *").expect("valid").1, None);
    assert_eq!(Cron::parse_with_zone("0 7 * * sun").expect("five fields").1, None);
    let why = |text: &str| Cron::parse_with_zone(text).expect_err(text);
    assert!(why("0 7 * * * Australia/Sidney").contains("did you mean `Australia/Sydney`?"));
    assert!(why("0 7 * * * 2027").contains("six fields"));
    assert!(why("0 99 * * * Australia/Sydney").contains("hour `99`"));
    assert!(why("0 7 * * sun mon tue").contains("7 of five"));
}

/// SCH-07.
#[test]
fn a_zone_that_is_unknown_is_named_with_its_neighbour() {
    assert_eq!(zone::parse("Europe/Berlin"), Ok(chrono_tz::Europe::Berlin));
    for (name, near) in
        [("europe/berlin", "`Europe/Berlin`"), ("Europe/Berln", "`Europe/Berlin`"), ("AEST10", "`UTC`"), ("", "`UTC`")]
    {
        let why = zone::parse(name).expect_err(name);
        assert!(why.contains(near), "{why}");
    }
}

/// SCH-11.
#[test]
fn windows_are_read_as_they_are_written() {
    for (text, shown) in [
        ("08:00-18:00", "08:00-18:00"),
        (" 8:00 - 18:30 ", "08:00-18:30"),
        ("22:00-06:00", "22:00-06:00"),
        ("00:00-24:00", "00:00-24:00"),
        ("18:00-24:00", "18:00-24:00"),
        ("18:00-00:00", "18:00-24:00"),
    ] {
        assert_eq!(Window::parse(text).expect(text).to_string(), shown);
    }
    for text in [
        "",
        "8-18",
        "08:00",
        "08:00-25:00",
        "24:00-08:00",
        "08:60-09:00",
        "08:00-08:00",
        "00:00-00:00",
        "8:0-9:00",
        "+8:00-09:00",
        "08:00-18:00-20:00",
        "08:00–18:00",
    ] {
        let why = Window::parse(text).expect_err(text);
        assert!(why.contains("`HH:MM-HH:MM`"), "{why}");
    }
}

/// SCH-12, C-21.
#[test]
fn days_have_names_and_numbers() {
    for (text, day) in [
        ("saturday", Weekday::Sat),
        ("Sat", Weekday::Sat),
        ("MONDAY", Weekday::Mon),
        ("0", Weekday::Sun),
        ("7", Weekday::Sun),
        ("1", Weekday::Mon),
        ("6", Weekday::Sat),
    ] {
        assert_eq!(Weekdays::day(text), Some(day), "{text}");
    }
    for text in ["", "8", "-1", "s", "satur", "07", "1.0", "sonntag", "ſat"] {
        assert_eq!(Weekdays::day(text), None, "{text}");
    }
    let days: Weekdays = [Weekday::Sun, Weekday::Sat].into_iter().collect();
    assert_eq!((days.to_string().as_str(), days.complement().iter().count()), ("sunday, saturday", 5));
}
