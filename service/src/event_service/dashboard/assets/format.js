export const STATES = {
  closed: "Closed",
  open: "Open",
  half_open: "Half-open",
  isolated: "Isolated",
};

export const OUTCOMES = {
  ok: "ok",
  refused: "refused by the breaker",
  timeout: "timeout",
  limited: "limited",
  failed: "failed",
  client: "client’s error",
};

// A number and its unit stay on one line.
const unit = (number, name) => `${number}\u00a0${name}`;
const NONE = "–";
const words = ["no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"];

export const numberWord = (number) => words[number] ?? String(number);

export const count = (number) => number.toLocaleString("en", { maximumFractionDigits: 0 });

/** Requests per second, with decimals only for low rates. */
export function rate(number) {
  return number.toLocaleString("en", { maximumFractionDigits: number < 10 ? 1 : 0 });
}

export function share(number) {
  if (number === null) return NONE;
  const percent = number * 100;
  if (percent > 0 && percent < 0.1) return unit("<0.1", "%");
  return unit(percent.toLocaleString("en", { maximumFractionDigits: percent < 10 ? 1 : 0 }), "%");
}

/** How long something took. */
export function latency(seconds) {
  if (seconds === null) return NONE;
  const digits = (value) => value.toLocaleString("en", { maximumSignificantDigits: 2 });
  return seconds < 1 ? unit(digits(seconds * 1000), "ms") : unit(digits(seconds), "s");
}

/** The time since or until a moment. */
export function span(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  if (whole < 60) return unit(whole, "s");
  if (whole < 3600) return `${unit(Math.floor(whole / 60), "min")} ${unit(whole % 60, "s")}`;
  if (whole < 86400) {
    return `${unit(Math.floor(whole / 3600), "h")} ${unit(Math.floor((whole % 3600) / 60), "min")}`;
  }
  return `${unit(Math.floor(whole / 86400), "d")} ${unit(Math.floor((whole % 86400) / 3600), "h")}`;
}

/** A countdown reaches 0 only at its end. */
export const remaining = (seconds) => span(Math.ceil(seconds));

export function clockTime(unixSeconds) {
  return new Date(unixSeconds * 1000).toLocaleTimeString("en-GB");
}

export const ruleText = (breaker) => breaker.rules.map((rule) => rule.text).join(", or ");
