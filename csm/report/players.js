"use strict";
// One clip plays at a time. A bar shows it and switches between the versions of the same clip, which share a
// set: the other version continues at the same second, or at the same share where their lengths differ.
(() => {
  const bar = document.querySelector(".transport");
  if (!bar) return;
  const [toggle, now, group, speed, volume, loop, close] =
    [".toggle", ".now", ".switch", ".speed", ".volume", ".loop", ".close"].map(name => bar.querySelector(name));
  const SAME_LENGTH = 0.05, STEP = 0.5, PAGE = 0.1;
  const players = new Map([...document.querySelectorAll(".player")].map(root => [root, build(root)]));
  let current = null;

  function build(root) {
    const audio = root.querySelector("audio"), wave = root.querySelector(".wave");
    const player = {
      root, audio, wave,
      button: root.querySelector("button"),
      time: root.querySelector("time"),
      label: root.dataset.label,
      length: Number(root.dataset.duration),
      version: root.closest(".version"),
      place: 0,  // seconds; the audio itself cannot be asked before it is loaded
    };
    player.button.addEventListener("click", () => audio.paused ? play(player) : audio.pause());
    wave.addEventListener("pointerdown", event => drag(player, event));
    wave.addEventListener("keydown", event => slide(player, event));
    root.querySelector(".save").addEventListener("click", event => save(event.currentTarget, audio.src));
    audio.addEventListener("play", () => { show(player); follow(player); });
    audio.addEventListener("pause", () => show(player));
    audio.addEventListener("ended", () => { player.place = 0; audio.currentTime = 0; draw(player, true); });
    return player;
  }

  const seconds = value => value.toFixed(1);
  const versionsOf = player => {
    const set = player.root.closest(".set");
    return set ? [...set.querySelectorAll(".player")].map(root => players.get(root)) : [player];
  };
  const titleOf = player => player.version ? player.version.querySelector("h4").textContent : player.label;

  function draw(player, whole) {
    const {wave, place, length} = player;
    wave.style.setProperty("--at", whole ? "100%" : 100 * Math.min(place / length, 1) + "%");
    player.time.textContent = seconds(whole ? length : place) + " s";
    wave.setAttribute("aria-valuenow", place.toFixed(2));
    wave.setAttribute("aria-valuetext", seconds(place) + " of " + seconds(length) + " seconds");
  }

  function follow(player) {
    if (player.audio.paused) return;
    player.place = player.audio.currentTime;
    draw(player);
    requestAnimationFrame(() => follow(player));
  }

  function show(player) {
    const on = !player.audio.paused, verb = on ? "Pause " : "Play ";
    player.root.classList.toggle("on", on);
    player.button.setAttribute("aria-label", verb + player.label);
    if (player !== current) return;
    bar.classList.toggle("on", on);
    toggle.setAttribute("aria-label", verb + player.label);
  }

  function select(player) {
    if (player === current) return;
    if (current) {
      current.audio.pause();
      if (current.version) current.version.classList.remove("now");
    }
    current = player;
    bar.hidden = !player;
    document.body.classList.toggle("playing", !!player);
    if (!player) return;
    if (player.version) player.version.classList.add("now");
    now.textContent = player.label;
    const all = versionsOf(player);
    group.replaceChildren(...(all.length < 2 ? [] : all.map((other, index) => {
      const button = document.createElement("button"), key = document.createElement("kbd");
      button.type = "button";
      key.textContent = index + 1;
      button.append(key, titleOf(other));
      button.setAttribute("aria-pressed", other === player);
      button.addEventListener("click", () => change(other));
      return button;
    })));
    show(player);
  }

  // A clip is decoded only when it is needed: a page holds dozens.
  function seek(player, place, after) {
    player.place = Math.min(Math.max(place, 0), player.length);
    draw(player);
    const go = () => { player.audio.currentTime = player.place; if (after) after(); };
    if (player.audio.readyState > 0) return go();
    player.audio.addEventListener("loadedmetadata", go, {once: true});
    player.audio.load();
  }

  function play(player) {
    select(player);
    Object.assign(player.audio, {loop: loop.getAttribute("aria-pressed") === "true", volume: volume.value});
    player.audio.defaultPlaybackRate = player.audio.playbackRate = speed.value;
    player.audio.play().catch(error => {
      if (error.name !== "AbortError") now.textContent = player.label + ": " + error.message;  // else: paused
    });
  }

  function change(next) {
    if (!next || next === current) return;
    const from = current, playing = !from.audio.paused;
    const same = Math.abs(next.length - from.length) <= SAME_LENGTH * from.length;
    const focused = group.contains(document.activeElement);
    select(next);
    if (focused) group.querySelector("[aria-pressed=true]").focus();
    seek(next, same ? from.place : from.place / from.length * next.length, () => {
      if (playing && current === next) play(next);
    });
  }

  function drag(player, event) {
    const {left, width} = player.wave.getBoundingClientRect();
    const to = moved => seek(player, (moved.clientX - left) / width * player.length);
    player.wave.setPointerCapture(event.pointerId);
    player.wave.addEventListener("pointermove", to);
    for (const end of ["pointerup", "pointercancel"])
      player.wave.addEventListener(end, () => player.wave.removeEventListener("pointermove", to), {once: true});
    to(event);
  }

  function slide(player, event) {
    const {place, length} = player;
    const to = {
      ArrowLeft: place - STEP, ArrowDown: place - STEP, ArrowRight: place + STEP, ArrowUp: place + STEP,
      PageDown: place - PAGE * length, PageUp: place + PAGE * length, Home: 0, End: length,
    }[event.key];
    if (event.key === " " || event.key === "Enter") player.button.click();
    else if (to === undefined || event.ctrlKey || event.altKey || event.metaKey) return;
    else seek(player, to);
    event.preventDefault();
  }

  // Browsers limit the length of a link's data address, not that of an object's.
  function save(link, address) {
    if (!address.startsWith("data:")) {
      link.href = address;
      return;
    }
    const [kind, text] = address.slice(5).split(";base64,");
    const bytes = Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
    link.href = URL.createObjectURL(new Blob([bytes], {type: kind}));
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  }

  toggle.addEventListener("click", () => current.button.click());
  close.addEventListener("click", () => select(null));
  speed.addEventListener("change", () => { current.audio.playbackRate = speed.value; });
  volume.addEventListener("input", () => { current.audio.volume = volume.value; });
  loop.addEventListener("click", () => {
    const on = loop.getAttribute("aria-pressed") !== "true";
    loop.setAttribute("aria-pressed", on);
    current.audio.loop = on;
  });
  document.addEventListener("keydown", event => {
    if (event.ctrlKey || event.altKey || event.metaKey || event.target.matches("input, select, textarea")) return;
    if (current && event.key >= "1" && event.key <= "9") change(versionsOf(current)[event.key - 1]);
  });
})();
