# METADATA
# description: |
#   Times of the week, exactly as operator/zerotrust/policy/evaluate.py reads them: by the wall clock of the window's time zone,
#   and a window across midnight belongs to the day on which it opens.
package zerotrust.authz.windows

_weekdays := {"Monday": 0, "Tuesday": 1, "Wednesday": 2, "Thursday": 3, "Friday": 4, "Saturday": 5, "Sunday": 6}

# Undefined where the time zone is unknown here.
is_open(window) := _within(window, _weekdays[time.weekday([time.now_ns(), window.time_zone])], _minute(window.time_zone))

_minute(zone) := (hours * 60) + minutes if [hours, minutes, _] := time.clock([time.now_ns(), zone])

_within(window, today, minute) := _same_day(window, today, minute) if {
	window.start < window.end
} else := _across_midnight(window, today, minute)

_same_day(window, today, minute) if {
	today in window.days
	window.start <= minute
	minute < window.end
} else := false

_across_midnight(window, today, minute) if {
	today in window.days
	minute >= window.start
} else if {
	((today + 6) % 7) in window.days
	minute < window.end
} else := false
