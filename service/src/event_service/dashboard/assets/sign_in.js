const form = document.getElementById("sign-in");
const token = document.getElementById("token");
const fault = document.getElementById("fault");

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  fault.textContent = "";
  try {
    const response = await fetch("/dashboard/session", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ token: token.value.trim() }),
    });
    if (response.ok) location.reload();
    else fault.textContent = (await response.json()).detail;
  } catch {
    fault.textContent = "The service does not answer.";
  }
  token.select();
});

token.focus();
