"""What a year of schedules must have come to, worked out from the rules alone.

Shares nothing with the gateway: crontab(5) is walked minute by minute through the local time of Python's zoneinfo, intervals
are added up, and every instant is judged by what the clock and the gateway did around it. Reads a script as JSON on stdin:

    {"schedules": [{"id", "every" (s) | "cron" | "at" | "after" (s), "zone", "jitter" (s), "window": "HH:MM-HH:MM",
                    "not_on": [0-6, 0 is Sunday], "catch_up", "cap": fire so many and skip the rest, "cap_reason"}],
     "segments": [{"how": "start|down|forward|back", "from": T, "to": T}],   the wall clock while the gateway runs
     "dues": {"<id>": {"<instant>": "<due>"}}}                               what was drawn for intervals with jitter

and prints a line for each row that the ledger must hold, separated by tabs:

    id  instant  status  reason or -  instants  last instant or -  due
"""

import json
import sys
from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
NAIVE = datetime(1970, 1, 1)
MINUTE = 60_000  # all times are milliseconds since 1970
DAY = 86_400_000
GRACE = 60_000
ROWS = 20_000  # for all that passed, of all schedules together
CATCH_UP = 100

MONTHS = "jan feb mar apr may jun jul aug sep oct nov dec".split()
DAYS = "sun mon tue wed thu fri sat".split()
NICKNAMES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}


def read(text):
    return round((datetime.fromisoformat(text.replace("Z", "+00:00")) - EPOCH) / timedelta(milliseconds=1))


def show(at):
    return (EPOCH + timedelta(milliseconds=at)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


# --- the local time of a zone, minute by minute ---


class Walk:
    """Wall minutes (since 1970, as the local clock shows them) of every minute of UTC from one time to another."""

    def __init__(self, zone, begin, end):
        self.first = begin // MINUTE
        info = ZoneInfo(zone)

        def offset(minute):
            at = EPOCH + timedelta(minutes=minute)
            return at.astimezone(info).utcoffset() // timedelta(minutes=1)

        walls = []
        minute, last = self.first, end // MINUTE
        while minute <= last:
            # A quarter of an hour at a time: no zone changes twice within one.
            stop = min(minute + 15 - minute % 15, last + 1)
            if offset(minute) == offset(stop - 1):
                shift = offset(minute)
                walls.extend(range(minute + shift, stop + shift))
            else:
                walls.extend(m + offset(m) for m in range(minute, stop))
            minute = stop
        self.walls = walls


def local(zone, at):
    """Minute of the day and day of the week (0 is Sunday) that the local clock shows."""
    there = (EPOCH + timedelta(milliseconds=at)).astimezone(ZoneInfo(zone))
    return there.hour * 60 + there.minute, there.isoweekday() % 7


# --- crontab(5) ---


def field(text, low, high, names=()):
    def number(word):
        if word.lower() in names:
            return low + names.index(word.lower())
        return int(word)

    chosen = set()
    for part in text.split(","):
        span, _, step = part.partition("/")
        if span == "*":
            begin, end = low, high
        elif "-" in span:
            begin, end = map(number, span.split("-"))
        else:
            assert not step, f"{part}: a step needs a range"
            begin = end = number(span)
        assert low <= begin <= end <= high, part
        chosen.update(range(begin, end + 1, int(step or 1)))
    return chosen


def cron_instants(text, walk):
    """All instants of the expression within the walk."""
    words = NICKNAMES.get(text.lower(), text).split()
    assert len(words) == 5, text
    minutes, hours = field(words[0], 0, 59), field(words[1], 0, 23)
    dom, months = field(words[2], 1, 31), field(words[3], 1, 12, MONTHS)
    dow = {day % 7 for day in field(words[4], 0, 7, DAYS)}
    # A day field that begins with a star does not count as restricted: then both must hold, otherwise either.
    either = not words[2].startswith("*") and not words[4].startswith("*")
    # With a star in the hour an expression follows elapsed time, without it names times on the wall.
    is_fixed = not words[1].startswith("*")

    days = {}

    def on_day(day):
        if day not in days:
            date = NAIVE + timedelta(days=day)
            a, b = date.day in dom, date.isoweekday() % 7 in dow
            days[day] = date.month in months and ((a or b) if either else (a and b))
        return days[day]

    def matches(wall):
        return wall % 60 in minutes and wall // 60 % 24 in hours and on_day(wall // 1440)

    found = []
    # The latest time that the wall clock has shown so far: a fixed time at or before it has been.
    latest = walk.walls[0] - 1
    for index, wall in enumerate(walk.walls):
        if wall == latest + 1:
            latest = wall
            due = wall % 60 in minutes and matches(wall)
        elif wall > latest:
            # The clock leaps: a fixed time that it leaps over is due now.
            due = any(matches(passed) for passed in range(latest + 1, wall + 1)) if is_fixed else matches(wall)
            latest = wall
        else:
            due = not is_fixed and matches(wall)
        if due:
            found.append((walk.first + index) * MINUTE)
    return found


class Walks:
    """The local times of a script's zones, from some days before it (so that the clock's latest time is known) to some time behind it
    (for the tick that is yet to come)."""

    def __init__(self, begin, end):
        self.begin = begin - begin % MINUTE - 3 * DAY
        self.end = end - end % MINUTE
        self.walks = {}

    def instants(self, text, zone):
        for days in (100, 800):
            if (zone, days) not in self.walks:
                self.walks[zone, days] = Walk(zone, self.begin, self.end + days * DAY)
            found = cron_instants(text, self.walks[zone, days])
            if found and found[-1] > self.end:
                return found
        raise ValueError(f"{text} is due in none of {days} days")


# --- what became of each instant ---


class Tick:
    def __init__(self, instant, due):
        self.instant, self.due = instant, due


class Schedule:
    """One schedule on its way through the segments."""

    def __init__(self, spec, segments, walks, dues, schedules):
        self.rows_of_its_own = max(20, min(1000, ROWS // schedules))
        self.id = spec["id"]
        self.zone = spec["zone"]
        self.jitter = spec.get("jitter", 0) * 1000
        self.every = spec["every"] * 1000 if "every" in spec else None
        self.after = spec["after"] * 1000 if "after" in spec else None
        self.at = read(spec["at"]) if "at" in spec else None
        self.cron = walks.instants(spec["cron"], self.zone) if "cron" in spec else None
        self.catch_up = spec.get("catch_up", "skip")
        self.window = None
        if "window" in spec:
            begin, end = ((int(t[:2]) * 60 + int(t[3:])) for t in spec["window"].split("-"))
            self.window = (begin, end)
        self.not_on = set(spec.get("not_on", ()))
        self.cap, self.cap_reason = spec.get("cap"), spec.get("cap_reason")
        self.fired = 0
        self.dues = {read(k): read(v) for k, v in dues.get(self.id, {}).items()}
        self.ended = {}  # instant -> [status, reason, instants, last, due]
        self.anchor = segments[0]["from"]
        self.segments = segments
        self.index = 0

    def is_one_shot(self):
        return self.at is not None or self.after is not None

    def due(self, instant):
        if not self.jitter:
            return instant
        due = self.dues.get(instant, instant)
        assert abs(due - instant) * 2 <= self.jitter, f"{self.id}: {show(instant)} is due at {show(due)}"
        return due

    def closed(self, at):
        minute, day = local(self.zone, at)
        if day in self.not_on:
            return "not_on"
        if self.window:
            begin, end = self.window
            inside = begin <= minute < end if begin < end else begin <= minute or minute < end
            if not inside:
                return "outside_window"
        return None

    def opens(self, at):
        while self.closed(at):
            at += MINUTE - at % MINUTE
        return at

    def next(self, after):
        """The first instant later than `after` that has not ended."""
        if self.every:
            k = max((after - self.anchor) // self.every + 1, 1)
            instant = self.anchor + k * self.every
            while instant in self.ended:
                instant += self.every
            return Tick(instant, self.due(instant))
        while self.index and self.cron[self.index - 1] > after:
            self.index -= 1
        while self.cron[self.index] <= after or self.cron[self.index] in self.ended:
            self.index += 1
        return Tick(self.cron[self.index], self.cron[self.index])

    def end(self, tick, status, reason=None, instants=1, last=None):
        assert tick.instant not in self.ended, f"{self.id}: {show(tick.instant)} twice"
        self.ended[tick.instant] = [status, reason, instants, last, tick.due]

    def fire(self, tick, now, status="fired", reason=None):
        why = self.closed(tick.due) or (self.closed(now) if now - tick.due > GRACE else None)
        if why:
            return self.end(tick, "skipped", why)
        if self.cap is not None and self.fired >= self.cap:
            return self.end(tick, "skipped", self.cap_reason)
        self.fired += 1
        if status == "fired" and now - tick.due > GRACE:
            reason = "late"
        return self.end(tick, status, reason)

    def passed(self, tick, now):
        """All ticks from this one on that were due before now."""
        ticks = []
        while tick.due < now:
            ticks.append(tick)
            tick = self.next(tick.instant)
        return ticks

    def is_young(self, tick, now):
        gap = self.next(tick.instant).instant - tick.instant
        return now - tick.due < min(GRACE, gap / 2)

    def account(self, ticks, now, why):
        """Ticks that nobody was there to fire."""
        late = []
        if self.every:
            count = {"skip": 0, "run_once": 1, "run_all": CATCH_UP}[self.catch_up]
            # Who would have been skipped then is not caught up now.
            able = [t for t in ticks if not self.closed(t.due)]
            late = able[len(able) - min(count, len(able)):]
        else:
            late = [t for t in ticks[-1:] if self.is_young(t, now)]
        # The newest get rows of their own, and those before them share one.
        shared = max(len(ticks) - self.rows_of_its_own, 0)
        before = [t for t in ticks[:shared] if t not in late]
        if before:
            self.end(before[0], "missed", why, len(before), before[-1].instant)
            for tick in before[1:]:
                self.ended[tick.instant] = None
        for tick in ticks[shared:]:
            if tick not in late:
                self.end(tick, "missed", why)
        for tick in late:
            self.fire(tick, now, "caught_up" if self.every else "fired")

    def run(self):
        return self.once() if self.is_one_shot() else self.recurring()

    def recurring(self):
        tick = None
        for segment in self.segments:
            now, until = segment["from"], segment["to"]
            if segment["how"] == "start":
                tick = self.next(now)
            elif segment["how"] == "down":
                gone = self.passed(tick, now)
                if gone:
                    tick = self.next(gone[-1].instant)
                    self.account(gone, now, "gateway_down")
            elif segment["how"] == "forward":
                gone = self.passed(tick, now)
                if gone:
                    tick = self.next(gone[-1].instant)
                    # The one that was expected fires, and the newest one when it is hardly late.
                    young = [t for t in gone[1:][-1:] if self.is_young(t, now)]
                    self.fire(gone[0], now)
                    self.account(gone[1 : len(gone) - len(young)], now, "clock_jumped")
                    for newest in young:
                        self.fire(newest, now)
            elif self.every and tick.instant - now > self.every + self.jitter:
                self.end(tick, "skipped", "clock_went_back")
                self.anchor = now
                tick = self.next(now)
            while tick.due <= until:
                self.fire(tick, tick.due)
                tick = self.next(tick.instant)
        self.end(tick, "expected")

    def once(self):
        tick = None
        for segment in self.segments:
            now, until = segment["from"], segment["to"]
            if self.after is not None and segment["how"] in ("start", "down"):
                if tick:
                    past = tick.due <= now
                    self.end(tick, *(("missed", "gateway_down") if past else ("skipped", "replaced")))
                tick = Tick(now + self.after, self.opens(now + self.after))
            elif segment["how"] == "start" and self.at > now:
                tick = Tick(self.at, self.opens(self.at))
            if tick and tick.due <= max(now, until):
                at = max(now, tick.due)
                opening = self.opens(at)
                if opening > until:
                    tick.due = opening
                    continue
                tick.due = opening if opening > at else tick.due
                reason = "late" if segment["how"] == "down" and tick.due < now else None
                self.end(tick, "fired", reason or ("late" if max(now, tick.due) - tick.due > GRACE else None))
                tick = None
        if tick:
            self.end(tick, "expected")

    def rows(self):
        for instant, row in sorted(self.ended.items()):
            if row:
                status, reason, instants, last, due = row
                yield "\t".join(
                    [self.id, show(instant), status, reason or "-", str(instants), show(last) if last else "-", show(due)]
                )


def main():
    script = json.load(sys.stdin)
    segments = [{**s, "from": read(s["from"]), "to": read(s["to"])} for s in script["segments"]]
    walks = Walks(min(s["from"] for s in segments), max(s["to"] for s in segments))
    out = []
    for spec in script["schedules"]:
        schedule = Schedule(spec, segments, walks, script.get("dues", {}), len(script["schedules"]))
        schedule.run()
        out.extend(schedule.rows())
    sys.stdout.write("\n".join(out) + "\n")


# Known answers, from the tables of cron(8) and the zones' own rules; a walk that gets one wrong proves nothing.
KNOWN = [
    ("30 2 * * *", "America/New_York", "2026-03-08", "2026-03-09", ["2026-03-08T07:00"]),
    ("30 2 * * *", "America/New_York", "2026-11-01", "2026-11-02", ["2026-11-01T07:30"]),
    ("30 1 * * *", "America/New_York", "2026-11-01", "2026-11-02", ["2026-11-01T05:30"]),
    ("0 2,14 * * *", "America/New_York", "2026-03-08", "2026-03-09", ["2026-03-08T07:00", "2026-03-08T18:00"]),
    ("30 1,13 * * *", "America/New_York", "2026-11-01", "2026-11-02", ["2026-11-01T05:30", "2026-11-01T18:30"]),
    ("15 2 * * *", "Australia/Lord_Howe", "2026-10-03", "2026-10-04", ["2026-10-03T15:30"]),
    ("45 1 * * *", "Australia/Lord_Howe", "2026-04-04", "2026-04-05", ["2026-04-04T14:45"]),
    ("*/30 * * * *", "America/New_York", "2026-11-01T05:00", "2026-11-01T06:59",
     ["2026-11-01T05:00", "2026-11-01T05:30", "2026-11-01T06:00", "2026-11-01T06:30"]),
    ("*/30 1 * * *", "America/New_York", "2026-11-01T05:00", "2026-11-01T06:59", ["2026-11-01T05:00", "2026-11-01T05:30"]),
    ("*/30 2 * * *", "America/New_York", "2026-03-08", "2026-03-09", ["2026-03-08T07:00"]),
    ("0 0 * * *", "America/Santiago", "2026-09-06", "2026-09-07", ["2026-09-06T04:00"]),
    ("0 0 13 * 5", "UTC", "2026-02-01", "2026-02-20", ["2026-02-06T00:00", "2026-02-13T00:00", "2026-02-20T00:00"]),
    ("0 0 */2 * 1", "UTC", "2026-06-01", "2026-06-22", ["2026-06-01T00:00", "2026-06-15T00:00"]),
    ("0 0 * * 7", "UTC", "2026-11-20", "2026-11-23", ["2026-11-22T00:00"]),
]


def self_test():
    for text, zone, begin, end, known in KNOWN:
        begin, end = (read(t + ("Z" if "T" in t else "T00:00Z")) for t in (begin, end))
        walk = Walk(zone, begin - 3 * DAY, end)
        found = [show(t)[:16] for t in cron_instants(text, walk) if begin <= t <= end]
        assert found == known, f"{text} in {zone}: {found} instead of {known}"
    print(f"{len(KNOWN)} known answers")


if __name__ == "__main__":
    if sys.argv[1:] == ["--self-test"]:
        self_test()
    else:
        main()
