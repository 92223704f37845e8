// Before anything is drawn, so that nothing flashes: the choice of light or dark, if one was made. Without one the system says.
"use strict";
(() => {
  const CHOICES = ["auto", "light", "dark"];
  const root = document.documentElement;

  function choice() {
    try {
      const kept = localStorage.getItem("jeton.theme");
      return CHOICES.includes(kept) ? kept : "auto";
    } catch {
      return "auto";
    }
  }

  function apply(chosen) {
    if (chosen === "auto") delete root.dataset.theme;
    else root.dataset.theme = chosen;
  }

  function name(button, chosen) {
    const called = { auto: "Auto", light: "Light", dark: "Dark" }[chosen];
    button.textContent = `◐ ${called}`;
    button.setAttribute("aria-label", `Theme: ${called}. Change`);
  }

  apply(choice());
  document.addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    let chosen = choice();
    name(button, chosen);
    button.onclick = () => {
      chosen = CHOICES[(CHOICES.indexOf(chosen) + 1) % CHOICES.length];
      apply(chosen);
      name(button, chosen);
      try {
        localStorage.setItem("jeton.theme", chosen);
      } catch {
        // A browser that keeps nothing still shows it.
      }
    };
  });
})();
