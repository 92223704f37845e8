"use strict";

async function show() {
  const page = document.getElementById("page");
  const answer = await fetch("/api/overview");
  const told = await answer.json();
  page.textContent = answer.ok ? (told.healthy ? "healthy" : "degraded") : told.error.message;
}

show();
