// Keys for lists, autosave for reports, and small comforts. Every page works without it.
"use strict";
(() => {
  const rows = () => [...document.querySelectorAll("tbody tr[data-open]")];
  let at = -1;

  function go(step) {
    const all = rows();
    if (!all.length) return;
    at = Math.max(0, Math.min(all.length - 1, at + step));
    all.forEach((row, n) => row.classList.toggle("here", n === at));
    const link = all[at].querySelector("a.row");
    link.focus({ preventScroll: true });
    all[at].scrollIntoView({ block: "nearest" });
  }

  function follow(kind) {
    const row = rows()[at];
    const link = (row || document).querySelector(`a[data-key="${kind}"]`);
    if (link) link.click();
  }

  document.addEventListener("keydown", (event) => {
    const field = event.target.closest("input, textarea, select, [contenteditable]");
    if ((event.ctrlKey || event.metaKey) && event.key === "s" && document.querySelector("form[data-autosave]")) {
      event.preventDefault();
      document.dispatchEvent(new CustomEvent("save-draft"));
      return;
    }
    if (event.key === "Escape" && field) field.blur();
    if (field || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "/") {
      const search = document.querySelector("input[type=search]");
      if (search) { event.preventDefault(); search.focus(); search.select(); }
    } else if (event.key === "j" || (event.key === "ArrowDown" && at >= 0)) { event.preventDefault(); go(1); }
    else if (event.key === "k" || (event.key === "ArrowUp" && at >= 0)) { event.preventDefault(); go(-1); }
    else if (event.key === "Enter" && at >= 0 && !event.target.closest("a, button")) rows()[at].querySelector("a.row").click();
    else if (event.key === "x" && at >= 0) {
      const box = rows()[at].querySelector("input[type=checkbox]");
      if (box) box.click();
    } else if (event.key === "v") follow("v");
    else if (event.key === "r") follow("r");
    else if (event.key === "?") { const keys = document.getElementById("keys"); if (keys && !keys.open) keys.showModal(); }
  });

  document.addEventListener("change", (event) => {
    if (event.target.matches("[data-submit]")) event.target.form.requestSubmit();
    const boxes = [...document.querySelectorAll("tbody input[type=checkbox]")];
    if (event.target.matches("[data-select-all]")) boxes.forEach((box) => { box.checked = event.target.checked; });
    const count = document.querySelector("[data-selected]");
    if (count) count.textContent = boxes.filter((box) => box.checked).length;
  });

  const form = document.querySelector("form[data-autosave]");
  if (form) autosave(form);

  function autosave(form) {
    const status = form.querySelector("[data-status]");
    const words = status.dataset;
    const text = () => ["technique", "findings", "impression"].map((name) => form.elements[name].value).join("\u0000");
    let saved = text();
    let stopped = false;
    let busy = false;

    async function save() {
      const now = text();
      if (stopped || busy || now === saved) return;
      busy = true;
      try {
        const answer = await fetch(form.dataset.autosave, {
          method: "POST", body: new URLSearchParams(new FormData(form)), credentials: "same-origin",
          headers: { Accept: "application/json" },
        });
        const told = answer.headers.get("Content-Type") === "application/json" ? await answer.json() : {};
        if (answer.ok) {
          saved = now;
          form.elements.edits.value = told.edits;
          say(told.message, "");
        } else if (answer.status === 409) {
          stopped = true;
          say(told.message, "bad");
        } else say(answer.status === 401 ? words.signedOut : words.failed, "bad");
      } catch { say(words.failed, "bad"); }
      busy = false;
    }

    function say(message, kind) {
      status.textContent = message;
      status.className = kind ? `note ${kind}` : "soft";
    }

    setInterval(save, 15000);
    document.addEventListener("save-draft", save);
    document.addEventListener("visibilitychange", () => { if (document.hidden) save(); });
    form.addEventListener("submit", () => { saved = text(); });
    window.addEventListener("beforeunload", (event) => { if (text() !== saved) event.preventDefault(); });
  }
})();
