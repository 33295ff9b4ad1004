// The theme: light, dark, or the system's.

import { S } from "./strings.js";
import { toast } from "./toasts.js";

const ORDER = ["auto", "light", "dark"];

export function connect(button) {
  let theme = localStorage.getItem("theme") ?? "auto";
  const apply = () => {
    // Without the attribute the style sheet follows the system.
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
  };
  button.addEventListener("click", () => {
    theme = ORDER[(ORDER.indexOf(theme) + 1) % ORDER.length];
    localStorage.setItem("theme", theme);
    apply();
    toast(S.themes[theme]);
  });
  apply();
}
