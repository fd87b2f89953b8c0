// The system's colours, unless the user chose a theme.

const KEY = "event-service-theme";
const ORDER = ["system", "light", "dark"];

export function themeButton(button) {
  function apply(theme) {
    if (theme === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    button.textContent = `Theme: ${theme}`;
  }

  let theme = localStorage.getItem(KEY);
  if (!ORDER.includes(theme)) theme = "system";
  apply(theme);
  button.addEventListener("click", () => {
    theme = ORDER[(ORDER.indexOf(theme) + 1) % ORDER.length];
    localStorage.setItem(KEY, theme);
    apply(theme);
  });
}
