"use strict";
// Behind a proxy the server does not always know under which address it is seen.
for (const command of document.querySelectorAll(".curl")) {
  command.textContent = command.textContent.replace(/https?:\/\/[^/]+/, location.origin);
}

for (const form of document.forms) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const output = form.querySelector("output");
    let path = form.dataset.path;
    const query = new URLSearchParams();
    const headers = {};
    for (const field of form.querySelectorAll("[data-in]")) {
      const value = field.value;
      if (field.dataset.in === "path") {
        path = path.replace(`{${field.name}}`, encodeURIComponent(value));
      } else if (value && field.dataset.in === "query") {
        query.set(field.name, value);
      } else if (value && field.dataset.in === "header") {
        headers[field.name] = value;
      }
    }
    const body = form.elements.namedItem("body")?.value;
    if (body !== undefined) headers["Content-Type"] = "application/json";
    const address = query.size ? `${path}?${query}` : path;
    const shown = document.createElement("pre");
    shown.tabIndex = 0;
    try {
      const began = performance.now();
      const response = await fetch(address, { method: form.dataset.method, headers, body });
      const text = await response.text();
      const took = Math.round(performance.now() - began);
      const fields = [...response.headers].map(([name, value]) => `${name}: ${value}`).join("\n");
      shown.textContent = `${response.status} in ${took} ms\n${fields}\n\n${readable(response, text)}`;
    } catch (error) {
      shown.textContent = String(error);
    }
    output.replaceChildren(shown);
  });
}

function readable(response, text) {
  const type = response.headers.get("content-type") ?? "";
  if (type.startsWith("text/html")) {
    return `A page of ${new Blob([text]).size} bytes: open ${response.url}`;
  }
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}
