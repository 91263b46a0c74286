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
  const parts = high / low > 1e4 ? [1] : high / low > 30 ? [1, 3] : [1, 1.5, 2, 3, 5, 7];
  for (let power = Math.floor(Math.log10(low)); 10 ** power <= high; power++) {
    ticks.push(...parts.map((part) => Number(`${part}e${power}`)));
  }
  const inside = ticks.filter((tick) => tick >= low && tick <= high);
  if (inside.length > 2) return inside;
  const size = 10 ** Math.floor(Math.log10((high - low) / 3 || 1));
  const gap = size * ([1, 2, 5].find((part) => (high - low) / (part * size) <= 5) ?? 10);
  const count = Math.floor(high / gap) - Math.ceil(low / gap) + 1;
  const nth = (i) => Number(((Math.ceil(low / gap) + i) * gap).toPrecision(6));
  return Array.from({ length: count }, (_, i) => nth(i));
}
