// How numbers are written, as format_number of the server does.
export function number(value, digits = 4) {
  if (value === null) return "–";
  const [fraction, exponent] = value.toExponential(digits - 1).split("e");
  if (exponent >= -4 && exponent < 7) return String(Number(value.toPrecision(digits)));
  return `${Number(fraction)}e${exponent[0]}${exponent.slice(1).padStart(2, "0")}`;
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
