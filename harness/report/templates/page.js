"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const root = document.documentElement;

  // Theme: as the system says, until somebody chooses; #theme=dark chooses for one visit.
  const themes = ["auto", "light", "dark"];
  const toggle = document.getElementById("theme");
  const stored = () => {
    try { return localStorage.getItem("harness-theme"); } catch { return null; }
  };
  const dress = (theme) => {
    if (theme === "auto") delete root.dataset.theme;
    else root.dataset.theme = theme;
    toggle.textContent = "Theme: " + theme;
    toggle.dataset.theme = theme;
  };
  const asked = (location.hash.match(/theme=(light|dark)/) || [])[1];
  dress(asked || (themes.includes(stored()) ? stored() : "auto"));
  toggle.hidden = false;
  toggle.addEventListener("click", () => {
    const next = themes[(themes.indexOf(toggle.dataset.theme) + 1) % themes.length];
    dress(next);
    try { localStorage.setItem("harness-theme", next); } catch { /* a file may not store */ }
  });

  // Heat map: one figure at a time.
  const maps = all("[data-heat]");
  const buttons = all("[data-show]");
  const show = (key) => {
    maps.forEach((map) => { map.hidden = map.dataset.heat !== key; });
    buttons.forEach((b) => b.setAttribute("aria-pressed", String(b.dataset.show === key)));
  };
  buttons.forEach((b) => b.addEventListener("click", () => show(b.dataset.show)));
  if (buttons.length) {
    document.getElementById("choice").hidden = false;
    show(buttons[0].dataset.show);
  }

  // Audio: a reference is carried once, however many takes it stands beside.
  const uris = JSON.parse(document.getElementById("uris").textContent);
  const players = all("audio[data-uri]");
  players.forEach((player) => {
    player.src = uris[player.dataset.uri];
    const wave = player.parentElement.querySelector(".wave");
    const line = wave.querySelector("line");
    const seconds = Number(wave.dataset.seconds);
    const width = wave.viewBox.baseVal.width;
    player.addEventListener("play", () => {
      players.forEach((other) => { if (other !== player) other.pause(); });
    });
    player.addEventListener("timeupdate", () => {
      const x = String((player.currentTime / seconds) * width);
      line.setAttribute("x1", x);
      line.setAttribute("x2", x);
    });
    wave.addEventListener("click", (event) => {
      const box = wave.getBoundingClientRect();
      player.currentTime = ((event.clientX - box.left) / box.width) * seconds;
      player.play();
    });
  });

  // Tables: sort by a column, filter by words.
  all("table.sortable").forEach((table) => {
    const body = table.tBodies[0];
    const heads = all("thead th", table);
    heads.forEach((head, column) => {
      head.querySelector("button").addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const value = (row) => row.cells[column].dataset.value;
        const rows = [...body.rows].sort((a, b) => {
          const [x, y] = [value(a), value(b)];
          if (x === "" || y === "") return (x === "") - (y === "");
          const order = head.classList.contains("number") ? x - y : x.localeCompare(y);
          return down ? -order : order;
        });
        body.append(...rows);
      });
    });
  });
  const filter = document.getElementById("filter");
  if (filter) {
    filter.hidden = false;
    filter.addEventListener("input", () => {
      const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
      all("#all tbody tr").forEach((row) => {
        const text = row.dataset.names.toLowerCase();
        row.hidden = !words.every((word) => text.includes(word));
      });
    });
  }
})();
