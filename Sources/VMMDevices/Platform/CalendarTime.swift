/// A moment in UTC, in the proleptic Gregorian calendar and without leap seconds (POSIX.1-2024,
/// 4.19).
struct CalendarTime: Equatable {
    let year: UInt64
    /// 1 to 12.
    let month: UInt64
    /// 1 to 31.
    let day: UInt64
    let hour: UInt64
    let minute: UInt64
    let second: UInt64
    /// 1 (Sunday) to 7 (Saturday).
    let weekday: UInt64

    init(secondsSince1970 seconds: UInt64) {
        let days = seconds / 86_400
        let rest = seconds % 86_400
        hour = rest / 3600
        minute = rest / 60 % 60
        second = rest % 60
        // 1970-01-01 was a Thursday, the fifth day of its week.
        weekday = (days + 4) % 7 + 1

        // Years are counted from 1 March, so that the leap day is the last one of a year; 719468
        // days lie between 1 March of year 0 and 1970.
        let sinceMarch = days + 719_468
        let era = sinceMarch / Self.daysPerEra
        let dayOfEra = sinceMarch % Self.daysPerEra
        // Leap days that passed: one per 1460 days, but for centuries, and for the era's last day.
        let leapDays = dayOfEra / 1460 + dayOfEra / (Self.daysPerEra - 1) - dayOfEra / 36_524
        let yearOfEra = (dayOfEra - leapDays) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        // From March on, months of 31, 30, 31, 30, 31 days repeat: 153 days in five months.
        let monthFromMarch = (5 * dayOfYear + 2) / 153
        day = dayOfYear - (153 * monthFromMarch + 2) / 5 + 1
        month = monthFromMarch < 10 ? monthFromMarch + 3 : monthFromMarch - 9
        year = era * 400 + yearOfEra + (month <= 2 ? 1 : 0)
    }

    /// 400 Gregorian years.
    private static let daysPerEra: UInt64 = 146_097
}
