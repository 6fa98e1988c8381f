"use strict";
(() => {
  const data = JSON.parse(document.getElementById("trace").textContent);
  const packets = data.packets;
  let chosen = 0;
  let hops = packets.length ? packets[0].hops : [];
  const root = document.documentElement;
  const $ = (id) => document.getElementById(id);
  const packet = $("packet");
  let at = -1;
  let timer = null;

  function element(tag, text, cls) {
    const made = document.createElement(tag);
    if (text !== undefined) made.textContent = text;
    if (cls) made.className = cls;
    return made;
  }

  function stops() {
    return hops.map((_, n) => n).filter((n) => hops[n].taken || $("all").checked);
  }

  function buildLadder() {
    let place = null;
    $("ladder").replaceChildren();
    hops.forEach((hop, n) => {
      if (hop.place !== place) {
        place = hop.place;
        $("ladder").append(element("span", place, "place"));
      }
      const button = element("button", hop.step ? hop.symbol + hop.step : hop.symbol);
      button.title = hop.title + (hop.taken ? "" : ": not taken, " + hop.reason);
      button.className = hop.dropped ? "drop" : hop.taken ? "" : "skipped";
      button.style.setProperty("--c", data.colours[hop.evidence]);
      button.addEventListener("click", () => { stop(); show(n); });
      $("ladder").append(button);
    });
  }

  function facts(hop) {
    const list = element("dl");
    const add = (name, value) => {
      if (value !== "" && value !== null && value !== undefined) {
        list.append(element("dt", name), element("dd", String(value)));
      }
    };
    add("program", hop.program);
    add("hook", hop.hook);
    add("mark", hop.mark);
    add("identity", hop.identity);
    add("conntrack", hop.ct);
    add("bytes", hop.bytes);
    add("time", hop.us === "" ? "" : hop.us + " µs after the first sight");
    add("object", hop.object);
    add("note", hop.taken ? hop.reason : "");
    return list;
  }

  function headers(hop) {
    const table = element("table");
    for (const layer of hop.headers) {
      const row = element("tr", undefined, layer.kind);
      const cell = element("td");
      for (const [name, value, old] of layer.fields) {
        const span = element("span", name + " ");
        span.append(old === null ? value : element("b", old + " → " + value));
        cell.append(span);
      }
      row.append(element("th", layer.name), cell);
      table.append(row);
    }
    return table;
  }

  function panel(hop) {
    const box = $("hop");
    const title = element("h2");
    if (hop.step) title.append(element("span", hop.step + " ", "no"));
    title.append(hop.title);
    const grade = element("span", hop.evidence, "grade");
    grade.style.setProperty("--c", data.colours[hop.evidence]);
    const how = element("p");
    how.append(grade, " " + data.means[hop.evidence]);
    box.replaceChildren(title, element("p", hop.does, "does"), element("p", hop.where, "where"));
    const known = hop.symbol === "?" ? "? " : "· not taken: ";
    if (!hop.taken) box.append(element("p", known + hop.reason, "verdict"));
    if (hop.dropped) {
      box.append(element("p", "✗ dropped: " + (hop.drop || "no reason given"), "verdict bad"));
    } else if (hop.verdict) {
      box.append(element("p", "→ " + hop.verdict, "verdict"));
    }
    if (hop.taken) box.append(how);
    if (hop.lookups.length) {
      const list = element("ul");
      list.id = "lookups";
      for (const line of hop.lookups) list.append(element("li", line));
      box.append(list);
    }
    box.append(facts(hop), headers(hop));
    if (hop.stack.length) {
      box.append(element("p", "call stack: " + hop.stack.join(" ← "), "stack"));
    }
    box.scrollTop = 0;
  }

  function move(hop) {
    packet.setAttribute("transform", "translate(" + hop.x + " " + hop.y + ")");
    packet.style.transform = "translate(" + hop.x + "px," + hop.y + "px)";
    packet.classList.toggle("dropped", hop.dropped);
    packet.classList.toggle("wrapped", hop.wrapped);
    for (const box of document.querySelectorAll(".lab [data-key]")) {
      const key = box.dataset.key;
      box.classList.toggle("here", key === hop.key);
      box.classList.toggle("been", hops.some((h, n) => n <= at && h.taken && h.key === key));
    }
  }

  function show(n) {
    at = n;
    const hop = hops[n];
    panel(hop);
    move(hop);
    const buttons = $("ladder").querySelectorAll("button");
    buttons.forEach((button, m) => {
      if (m === n) button.setAttribute("aria-current", "step");
      else button.removeAttribute("aria-current");
    });
    const list = stops();
    $("where").textContent = list.indexOf(n) + 1 + " / " + list.length;
    root.dataset.step = String(n);
    const over = n === list[list.length - 1];
    root.dataset.state = over && chosen === packets.length - 1 ? "end" : "on";
    $("end").hidden = !over;
  }

  function step(by) {
    const list = stops();
    const next = by > 0 ? list.find((n) => n > at) : list.filter((n) => n < at).pop();
    if (next !== undefined) show(next);
    return next !== undefined;
  }

  function choose(n) {
    chosen = n;
    hops = packets[n].hops;
    $("packets").selectedIndex = n;
    $("name").textContent = packets[n].name;
    $("facts").textContent = packets[n].facts;
    $("lost").textContent = packets[n].lost;
    $("end").textContent = packets[n].end;
    $("end").className = packets[n].kind;
    at = -1;
    buildLadder();
    const list = stops();
    if (list.length) show(list[0]);
    else root.dataset.state = n === packets.length - 1 ? "end" : "on";
    return true;
  }

  function other(by) {
    const n = chosen + by;
    return n >= 0 && n < packets.length ? choose(n) : false;
  }

  function stop() {
    if (timer !== null) clearInterval(timer);
    timer = null;
    $("play").textContent = "▶ play";
  }

  function play() {
    if (timer !== null) { stop(); return; }
    if (root.dataset.state === "end") choose(0);
    $("play").textContent = "‖ pause";
    timer = setInterval(() => { if (!step(1) && !other(1)) stop(); }, 1100);
  }

  function theme() {
    const dark = root.dataset.theme
      ? root.dataset.theme === "dark"
      : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  }

  const keys = {
    ArrowRight: () => { stop(); step(1); }, ArrowDown: () => { stop(); step(1); },
    ArrowLeft: () => { stop(); step(-1); }, ArrowUp: () => { stop(); step(-1); },
    Home: () => { stop(); show(stops()[0]); }, End: () => { stop(); show(stops().pop()); },
    PageDown: () => { stop(); other(1); }, PageUp: () => { stop(); other(-1); },
    " ": play, p: play, d: theme,
  };

  $("first").addEventListener("click", keys.Home);
  $("back").addEventListener("click", keys.ArrowLeft);
  $("next").addEventListener("click", keys.ArrowRight);
  $("last").addEventListener("click", keys.End);
  $("play").addEventListener("click", play);
  $("theme").addEventListener("click", theme);
  $("all").addEventListener("change", () => show(at));
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || !(event.key in keys)) return;
    if (event.target.tagName === "SELECT") return;
    if (event.key === " " && event.target.tagName === "BUTTON") return;
    event.preventDefault();
    keys[event.key]();
  });

  packets.forEach((one, n) => $("packets").append(element("option", n + 1 + ". " + one.name)));
  $("packets").hidden = packets.length < 2;
  $("packets").addEventListener("change", () => { stop(); choose($("packets").selectedIndex); });
  const wantedPacket = /packet=(\d+)/.exec(location.hash);
  if (packets.length) choose(wantedPacket ? Math.min(wantedPacket[1], packets.length) - 1 : 0);
  if (hops.length) {
    const wanted = /step=(\d+)/.exec(location.hash);
    if (wanted) show(Math.min(Number(wanted[1]), hops.length - 1));
    if (location.hash.includes("play")) play();
  } else {
    root.dataset.state = "end";
  }
})();
