"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const { study, kind, seconds, orders } = JSON.parse($("study-data").textContent);
  const strings = JSON.parse($("strings-data").textContent);
  const choices = kind === "single" ? ["real", "completed"] : ["first", "second"];

  const say = (name, values = {}) =>
    strings[name].replace(/\{(\w+)\}/g, (_, word) => values[word]);

  let participant = 0;
  let order = [];
  let answers = [];
  let shownAt = 0; // 0 while nothing is to be answered
  let timer = 0;
  let unsaved = false;

  // --- kept in the browser, so that a closed page goes on where it was

  const place = () => `gl-jax-study-${study}-${participant}`;

  function recall() {
    try {
      return JSON.parse(localStorage.getItem(place())) || { answers: [], seen: 0 };
    } catch {
      return { answers: [], seen: 0 };
    }
  }

  // `seen` counts the questions that were shown: with a time limit, there is no second look.
  function remember(seen) {
    try {
      localStorage.setItem(place(), JSON.stringify({ answers, seen }));
    } catch {
      // Without storage the page works until it is closed.
    }
  }

  // --- one part of the page at a time

  function show(part) {
    for (const main of document.querySelectorAll("main")) main.hidden = main.id !== part;
  }

  function showIntro() {
    const count = orders[0].length;
    $("title").textContent = say("title");
    $("introTask").textContent =
      say(kind === "single" ? "introSingle" : "introPair", { count });
    $("introTime").textContent =
      seconds === null ? say("introUntimed") : say("introTimed", { seconds });
    $("introData").textContent = say("introData");
    $("numberLabel").textContent = say("number", { last: orders.length });
    $("number").max = orders.length;
    $("number").value = new URLSearchParams(location.search).get("participant") || "";
    $("start").textContent = say("start");
    show("intro");
  }

  function fail(file) {
    clearTimeout(timer);
    shownAt = 0;
    $("failure").textContent = say("missing", { file });
    show("failed");
  }

  // --- questions

  const fileOf = (name) => `pictures/${name}.png`;
  const loading = new Map();

  /** A picture of the page, loaded once. */
  function load(name) {
    if (!loading.has(name)) {
      const image = new Image();
      image.src = fileOf(name);
      loading.set(name, image);
    }
    return loading.get(name);
  }

  async function ask() {
    const number = answers.length;
    if (number === order.length) return finish();
    const names = order[number];
    const single = kind === "single";
    const [left, right] = choices.map((choice) => say(choice));
    $("progress").max = order.length;
    $("progress").value = number;
    $("count").textContent =
      say("progress", { number: number + 1, count: order.length });
    $("question").textContent = names.length
      ? say(single ? "questionSingle" : "questionPair")
      : say("instruction", { real: say("real") });
    $("left").textContent = left;
    $("right").textContent = right;
    $("keys").textContent = say("keys", { left, right });
    $("left").disabled = $("right").disabled = true;
    $("pictures").replaceChildren();
    $("pictures").className = single ? "" : "pair";
    $("status").textContent = names.length ? say("wait") : "";
    show("asking");
    $("question").focus({ preventScroll: true });
    const images = names.map(load);
    for (const [index, image] of images.entries()) {
      try {
        await image.decode();
      } catch {
        return fail(fileOf(names[index]));
      }
    }
    const again = seconds !== null && recall().seen > number;
    remember(number + 1);
    $("status").textContent = "";
    $("pictures").replaceChildren(...images.map((image, index) => {
      const figure = document.createElement("figure");
      const caption = document.createElement("figcaption");
      image.alt = single ? say("picture") : say(choices[index]);
      caption.textContent = single ? "" : image.alt;
      figure.append(image, caption);
      return figure;
    }));
    if (again && names.length) hide();
    // The clock starts with the frame that has the pictures.
    requestAnimationFrame(() => {
      shownAt = performance.now();
      $("left").disabled = $("right").disabled = false;
      if (seconds !== null && names.length) timer = setTimeout(hide, 1000 * seconds);
    });
    for (const name of order[number + 1] || []) load(name);
  }

  function hide() {
    $("pictures").classList.add("hidden");
    $("status").textContent = say("hidden");
  }

  function answer(choice) {
    if (!shownAt) return;
    const milliseconds = Math.round(performance.now() - shownAt);
    shownAt = 0;
    clearTimeout(timer);
    const question = order[answers.length];
    answers.push({ question, answer: choice, milliseconds });
    for (const name of question) loading.delete(name); // pictures can be large
    unsaved = true;
    remember(answers.length);
    ask();
  }

  // --- the file of answers

  /** CRC-32 as in zlib: a file that was changed by hand is noticed. */
  function crc32(text) {
    let crc = ~0;
    for (const byte of new TextEncoder().encode(text)) {
      crc ^= byte;
      for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
    }
    return ~crc >>> 0;
  }

  function finish() {
    $("doneHeading").textContent = say("doneHeading");
    $("doneText").textContent = say("done", { count: order.length });
    $("save").textContent = say("save");
    $("saved").textContent = "";
    show("done");
    $("doneHeading").focus({ preventScroll: true });
  }

  function save() {
    const checksum = crc32(JSON.stringify([study, participant, answers]));
    const text = JSON.stringify({ study, participant, answers, checksum });
    const file = `answers-${study}-${participant}.json`;
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
    link.download = file;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
    unsaved = false;
    $("saved").textContent = say("saved", { file });
  }

  // --- events

  $("entry").addEventListener("submit", (event) => {
    event.preventDefault();
    participant = Number($("number").value);
    order = orders[participant - 1];
    answers = recall().answers;
    ask();
  });
  $("left").addEventListener("click", () => answer(choices[0]));
  $("right").addEventListener("click", () => answer(choices[1]));
  $("save").addEventListener("click", save);
  document.addEventListener("keydown", (event) => {
    if (event.repeat || event.ctrlKey || event.altKey || event.metaKey) return;
    if (["ArrowLeft", "1"].includes(event.key)) answer(choices[0]);
    if (["ArrowRight", "2"].includes(event.key)) answer(choices[1]);
  });
  window.addEventListener("beforeunload", (event) => {
    if (unsaved) event.preventDefault();
  });
  showIntro();
})();
