// How numbers are written: four significant digits, as in the tables of the server.

export function number(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size < 1e-4 || size >= 1e7) {
    const [digits, exponent] = value.toExponential(3).split("e");
    return `${Number(digits)}e${exponent.replace("+", "")}`;
  }
  return String(Number(value.toPrecision(4)));
}

export function percent(value) {
  return value === null || value === undefined ? "–" : `${Number((100 * value).toPrecision(3))} %`;
}

// Ticks of a logarithmic axis between two values; linear ones if the range is small.
export function logTicks(low, high) {
  const ticks = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) {
    const steps = high / low > 1e4 ? [1] : high / low > 30 ? [1, 3] : [1, 1.5, 2, 3, 5, 7];
    for (const step of steps) {
      const tick = Number((step * 10 ** power).toPrecision(6));
      if (tick >= low && tick <= high) ticks.push(tick);
    }
  }
  if (ticks.length > 2) return ticks;
  const size = 10 ** Math.floor(Math.log10((high - low) / 3 || 1));
  const gap = [1, 2, 5, 10].map((m) => m * size).find((g) => (high - low) / g <= 5) ?? size;
  const linear = [];
  for (let tick = Math.ceil(low / gap) * gap; tick <= high; tick += gap) {
    linear.push(Number(tick.toPrecision(6)));
  }
  return linear;
}
