// What the page says: why there is no value now, and why a result has no more.

export const REASONS = {
  no_face: "No face is seen: come into the picture",
  multiple_faces: "There are several faces: one at a time",
  frame_rate: "The camera gives too few images per second",
  gap: "Images were missing: wait a moment",
  too_short: "Hold still: a first value takes eight seconds",
  overexposed: "Less light: the face is too bright",
  low_light: "More light",
  motion: "Hold still",
  flicker: "The light flickers: try daylight or another lamp",
  low_snr: "No clear pulse: hold still, with even light on your face",
  unstable: "The pulse is not steady yet: hold still",
};

const AFTERWARDS = {
  no_face: "no face was seen",
  multiple_faces: "several faces were seen",
  frame_rate: "the camera gives too few images per second",
  gap: "images were missing",
  overexposed: "the face was too bright",
  low_light: "there was too little light",
  motion: "there was too much movement",
  flicker: "the light flickers",
  low_snr: "the pulse did not stand out",
  unstable: "the pulse was not steady",
  artefacts: "too many beats are unclear",
  jitter: "the beats cannot be timed well enough",
  disagreement: "the signs of breathing disagree",
};

// The vitals that a result shows, and how many seconds each needs.
export const SHOWN = { heart_rate: ["heart rate", 8], respiration_rate: ["breaths", 30], rmssd: ["variability", 30] };

export const told = ({ value, unit }) => (value === null ? "–" : `${value} ${unit}`);

// One sentence on what a result does not have; empty when it has everything.
export function whyNotMore(vitals) {
  const named = new Map();
  for (const [key, [name, seconds]] of Object.entries(SHOWN)) {
    const { reason } = vitals[key];
    if (reason === null) continue;
    const words = reason === "too_short" ? `${seconds} seconds or more are needed` : (AFTERWARDS[reason] ?? reason);
    named.set(words, [...(named.get(words) ?? []), name]);
  }
  const parts = [...named].map(([words, names]) => `${listed(names)}: ${words}`);
  const text = parts.join("; ");
  return text.charAt(0).toUpperCase() + text.slice(1);
}

const listed = (names) => (names.length < 2 ? names.join("") : `${names.slice(0, -1).join(", ")} and ${names.at(-1)}`);
