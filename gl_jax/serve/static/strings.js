// All texts of the page. To translate the page, translate this file.

const modifier = navigator.platform.startsWith("Mac") ? "⌘" : "Ctrl";

export const S = {
  language: "en",
  name: "gl_jax",
  open: "Open",
  openLong: "Open photos",
  save: "Save",
  saveAs: "Save as …",
  undo: "Undo",
  redo: "Redo",
  compare: "Compare",
  theme: "Light or dark",
  themes: { auto: "as the system", light: "light", dark: "dark" },
  help: "Keys",
  settings: "Settings",
  close: "Close",
  stage: "Photo. Paint over an object to remove it.",
  tools: "Tools",
  strip: "Photos",
  fit: "Fit to window",

  welcome: "Paint over an object to remove it",
  welcomeText: "Drop photos here, paste one, or open them.",
  welcomeSmall: "They stay on the machine that runs gl-jax.",

  tool: {
    brush: "Brush",
    eraser: "Eraser",
    rectangle: "Rectangle",
    lasso: "Lasso",
    wand: "Wand: similar colours",
    hand: "Hand: move the photo",
  },
  size: "Size",
  pixels: (count) => `${count} px`,
  percent: (count) => `${count} %`,
  tolerance: "Tolerance",
  toleranceHelp: "Largest difference from the clicked colour, in levels of 255.",
  rectangleLeft: "Left",
  rectangleTop: "Top",
  rectangleWidth: "Width",
  rectangleHeight: "Height",
  rectangleAdd: "Mark",
  rectangleHelp: "Drag on the photo, or enter the numbers in pixels.",

  mask: "Mask",
  invert: "Invert",
  grow: "Grow",
  shrink: "Shrink",
  clear: "Clear",
  last: "Last mask",
  loadMask: "Load …",
  saveMask: "Save mask",

  method: "Method",
  methodHelp: "Tick several to see their results side by side.",
  methods: {
    // In this order.
    gl: ["gl_jax", "The network, trained on photographs."],
    "demo-sharp": ["gl_jax, sharper", "With some texture, for busy surroundings."],
    patchmatch: ["PatchMatch", "Copies patches of the surroundings. Good for texture."],
    telea: ["Telea", "Continues the colours inwards. Quick; good for scratches."],
    ns: ["Navier-Stokes", "Continues lines of equal brightness."],
    biharmonic: ["Biharmonic", "The smoothest surface. Good for smooth areas."],
    shift_map: ["Shift map", "Copies shifted parts of the photo, with hidden seams."],
    criminisi: ["Criminisi", "Copies patches, edges first. Minutes for large holes."],
    mean: ["Mean", "One colour, for comparison."],
  },
  trained: (hole) => `Trained on holes of up to ${hole} pixels.`,
  options: "Options of the network",
  blend: "Invisible seam",
  blendHelp: "Poisson blending, as in the paper. On by default.",
  feather: "Feather",
  featherHelp: "Pixels around the hole over which it fades into the photo. By default 0.",
  resize: "Work at",
  resizeHelp:
    "Holes far larger than the trained ones are completed in a copy with this longer " +
    "side, in pixels, and enlarged. Empty: the size of the training. 0: full size.",
  resizeAuto: (size) => `${size}`,

  run: "Remove",
  cancel: "Cancel",
  runAll: (count) => `All ${count} photos`,
  runAllMasks: "Masks for all photos",
  runAllOwn: "own masks",
  runAllShared: "this mask",
  running: "Working …",
  waiting: (before) => `Waiting, ${before} ahead`,
  preparing: "Preparing …",
  windows: (done, count) => `${done} of ${count} windows`,
  stopping: "Stopping …",
  cancelled: "Cancelled.",
  results: "Results",
  enlarge: "Side by side",
  seconds: (seconds) => `${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s`,
  original: "Before",
  completed: "After",
  finished: (method, seconds) => `${method}: done after ${seconds}`,
  progress: "Progress",
  photosDone: (done, count) => `${done} of ${count} photos`,
  states: { marked: "marked", running: "in work", done: "completed" },

  format: "Format",
  formatOwn: (format) => (format ? `as the photo (${format})` : "as the photo"),
  quality: "Quality",
  qualityHelp: "1 to 100. Empty: a JPEG keeps its own, other formats get a high one.",
  download: "Download",
  intoFolder: (folder) => `Into ${folder}`,
  allIntoFolder: (count, folder) => `All ${count} results into ${folder}`,
  zip: (count) => `All ${count} results as ZIP`,
  savedAs: (name) => `Saved as ${name}.`,
  copied: "Copied.",

  remove: (name) => `Close ${name}`,
  removeUnsaved: (name) => `${name} has changes that are not saved. Close it?`,
  restore: "There is work from an earlier visit.",
  restoreYes: "Restore",
  restoreNo: "Discard",

  notice: {
    nothing: "Nothing is marked: paint over an object first.",
    noPhoto: "Open a photo first.",
    noLast: "There is no earlier mask.",
    noResult: "Nothing is removed yet: paint over an object and press Enter.",
    maskResized: (w, h) => `The mask was resized to ${w}x${h} pixels.`,
    replayed: "The server had dropped the result, so it was computed again.",
  },
  errors: {
    unreachable: "The server does not answer.",
    gone: "The server does not answer. Your work is kept; trying again …",
    back: "The server is back.",
    token:
      "This address has no valid token. Open the address that gl-jax printed: your work " +
      "is offered there.",
    lost: (name) => `The server no longer has ${name}: open it again.`,
    undecodable: (name) => `${name} cannot be shown.`,
    tooLarge: (name, limit) => `${name} is larger than ${limit} MB.`,
    copy: "This browser does not allow copying here.",
  },

  // Of the buttons with these labels.
  shortcuts: {
    openLong: `${modifier}+O`, undo: `${modifier}+Z`, redo: `${modifier}+Shift+Z`,
    compare: "C", fit: "0", help: "?", save: `${modifier}+S`, run: "Enter",
    "tool.brush": "B", "tool.eraser": "E", "tool.rectangle": "R", "tool.lasso": "L",
    "tool.wand": "W", "tool.hand": "H", invert: "I", grow: "+", shrink: "−",
    clear: "Del", last: "M",
  },
  keys: [
    ["Photo", [
      [`${modifier}+O`, "Open"],
      [`${modifier}+V`, "Paste a photo"],
      [`${modifier}+S`, "Save"],
      [`${modifier}+C`, "Copy the result"],
      ["PgUp  PgDn", "Previous, next photo"],
    ]],
    ["Mark", [
      ["B  E  R  L  W  H", "Brush, eraser, rectangle, lasso, wand, hand"],
      ["[  ]  Alt+wheel", "Smaller, larger brush"],
      ["Shift+drag", "A straight stroke"],
      ["Shift+click", "A straight stroke from the last point"],
      ["Alt+drag  Right button", "Erase"],
      ["I", "Invert"],
      ["+  −", "Grow, shrink"],
      ["Del", "Clear"],
      ["M", "Last mask again"],
      [`${modifier}+Z`, "Undo"],
      [`${modifier}+Shift+Z`, "Redo"],
    ]],
    ["View", [
      ["Space+drag  Arrows", "Move the photo"],
      ["Wheel", "Zoom"],
      ["0  Esc", "Fit to the window"],
      ["1 to 8", "100 to 800 %"],
      ["Hold Tab or O", "The original"],
      ["C", "Compare with a slider"],
    ]],
    ["Run", [
      ["Enter  Shift+R", "Remove"],
      ["Esc", "Cancel"],
      ["?", "These keys"],
    ]],
  ],
};

/** Sets the text of elements with data-t, and the label of those with data-label. */
export function translate(root = document) {
  const text = (path) => path.split(".").reduce((at, name) => at[name], S);
  document.documentElement.lang = S.language;
  for (const element of root.querySelectorAll("[data-t]")) {
    element.textContent = text(element.dataset.t);
  }
  for (const element of root.querySelectorAll("[data-label]")) {
    const label = text(element.dataset.label);
    element.setAttribute("aria-label", label);
    const key = S.shortcuts[element.dataset.label];
    if (element.matches("button")) element.title = key ? `${label} (${key})` : label;
  }
}
