// Keeps a page as it is now: told that something happened it fetches the page again, and replaces those marked elements
// whose content differs. And keys. Without it everything works, by links and forms.
"use strict";
(() => {
  const gone = document.getElementById("gone");
  const watch = document.body.dataset.watch;

  // An element in which somebody writes, or has opened something, is left alone.
  const isBusy = (element) =>
    element.querySelector("details[open]") ||
    (element.contains(document.activeElement) &&
      document.activeElement.matches("input, select, textarea"));

  const parts = (page) => [...page.querySelectorAll("main [data-live][id]")].map((part) => part.id).join();

  let fetching = false;
  let again = false;
  const refresh = async () => {
    if (fetching) {
      again = true;
      return;
    }
    fetching = true;
    try {
      const answer = await fetch(location.href, {
        headers: { accept: "text/html", "onelane-watch": "1" },
      });
      if (answer.redirected && new URL(answer.url).pathname === "/desk/login") {
        location.reload();
        return;
      }
      if (!answer.ok) return;
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      const main = document.getElementById("main");
      const fill = fresh.getElementById("main");
      // A list that was empty, or is now: there is nothing to put the one in the place of.
      if (fill && parts(document) !== parts(fresh) && !isBusy(main)) main.replaceChildren(...fill.childNodes);
      const row = [...rows()].indexOf(document.querySelector("tr.at"));
      for (const old of document.querySelectorAll("[data-live][id]")) {
        const now = fresh.getElementById(old.id);
        if (!now || isBusy(old)) continue;
        if (old.className !== now.className) old.className = now.className;
        if (old.innerHTML !== now.innerHTML) old.innerHTML = now.innerHTML;
      }
      document.title = fresh.title;
      if (row >= 0) mark([...rows()][row]);
    } catch {
      // The stream tells when the daemon is gone.
    } finally {
      fetching = false;
      if (again) {
        again = false;
        refresh();
      }
    }
  };

  if (watch) {
    const stream = new EventSource(watch);
    let lost = false;
    stream.addEventListener("changed", () => document.hidden || refresh());
    stream.addEventListener("open", () => {
      gone.hidden = true;
      if (lost) refresh();
      lost = false;
    });
    stream.addEventListener("error", () => {
      lost = true;
      gone.hidden = false;
    });
    document.addEventListener("visibilitychange", () => document.hidden || refresh());
    addEventListener("pagehide", () => stream.close());
    addEventListener("pageshow", (event) => event.persisted && location.reload());
  }

  // Times that run.
  const unit = document.documentElement.lang === "zh" ? { s: "秒", m: "分钟" } : { s: "s", m: "min" };
  const skew = Date.now() - performance.now();
  setInterval(() => {
    for (const element of document.querySelectorAll("[data-since]")) {
      const s = (skew + performance.now() - Number(element.dataset.since)) / 1000;
      if (s < 1) continue;
      element.textContent =
        s < 10 ? `${s.toFixed(1)} ${unit.s}` : s < 60 ? `${Math.floor(s)} ${unit.s}` : `${Math.floor(s / 60)} ${unit.m} ${Math.floor(s % 60)} ${unit.s}`;
    }
  }, 200);

  // Moments in the time of whoever looks.
  document.addEventListener("mouseover", (event) => {
    const time = event.target.closest?.("time[datetime]");
    if (time) time.title = new Date(time.dateTime).toLocaleString(document.documentElement.lang);
  });

  // Keys.
  const rows = () => document.querySelectorAll("tr[data-row]");
  const mark = (row) => {
    document.querySelector("tr.at")?.classList.remove("at");
    row?.classList.add("at");
  };
  const step = (by) => {
    const all = [...rows()];
    const at = all.indexOf(document.querySelector("tr.at"));
    const next = all[Math.max(0, Math.min(all.length - 1, at + by))];
    mark(next);
    next?.scrollIntoView({ block: "nearest" });
    next?.querySelector("a")?.focus({ preventScroll: true });
  };
  const keys = {
    "/": () => document.getElementById("search")?.focus(),
    j: () => step(1),
    k: () => step(-1),
    p: () => {
      const control = document.querySelector("[data-key=p]");
      control?.click();
      control?.parentElement.querySelector("input:not([type=hidden])")?.focus();
    },
    "?": () => document.getElementById("help")?.showModal(),
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Escape") {
      for (const open of document.querySelectorAll("details.menu[open]")) open.open = false;
      return;
    }
    if (event.target.matches("input, select, textarea") || !keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  });
  document.addEventListener("click", (event) => {
    for (const open of document.querySelectorAll("details.menu[open]"))
      if (!open.contains(event.target)) open.open = false;
    // What can't be undone asks once.
    const asks = event.target.closest?.("[data-ask]");
    if (asks && !confirm(asks.dataset.ask)) event.preventDefault();
  });
})();
