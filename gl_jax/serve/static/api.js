// Requests to the server. Each carries the token, the part of the page's address after #.

import { S } from "./strings.js";

const token = new URLSearchParams(location.hash.slice(1)).get("token") ?? "";

/** The server answered with an error. */
export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** The server did not answer. */
export class Unreachable extends Error {}

async function call(path, { query = {}, ...options } = {}) {
  const url = new URL(path, location.origin);
  for (const [name, value] of Object.entries(query)) {
    if (value !== null && value !== undefined && value !== "") {
      url.searchParams.set(name, value);
    }
  }
  let response;
  try {
    response = await fetch(url, {
      ...options,
      headers: { Authorization: `Bearer ${token}` },
      cache: "no-store",
    });
  } catch (error) {
    throw new Unreachable(S.errors.unreachable);
  }
  if (!response.ok) {
    const body = await response.json().catch(() => ({}));
    throw new Refused(response.status, body.error ?? response.statusText);
  }
  return response;
}

const json = async (path, options) => (await call(path, options)).json();
const blob = async (path, options) => (await call(path, options)).blob();
const notices = (response) => JSON.parse(response.headers.get("X-Notices") ?? "[]");

export const about = () => json("/api/about");
export const upload = (name, file) =>
  json("/api/photos", { method: "POST", query: { name }, body: file });
export const facts = (id) => json(`/api/photos/${id}`);
export const picture = (id) => blob(`/api/photos/${id}/picture`);
export const thumbnail = (id) => blob(`/api/photos/${id}/thumbnail`);
export const patch = (id, box) =>
  blob(`/api/photos/${id}/patch`, { query: { box: box.join(",") } });
export const job = (id) => json(`/api/jobs/${id}`);
export const cancel = (id) => json(`/api/jobs/${id}`, { method: "DELETE" });

/** Starts a completion; `mask` is {width, height, box: [x, y, w, h], bits}. */
export function start(photo, method, mask, options) {
  const { width, height, box, bits } = mask;
  const query = { photo, method, size: `${width},${height}`, box: box.join(",") };
  return json("/api/jobs", {
    method: "POST",
    query: { ...query, ...options },
    body: bits,
  });
}

/** Returns the file of a photo or result: {blob, name, notices}. */
export async function file(id, options) {
  const response = await call(`/api/photos/${id}/file`, { query: options });
  const disposition = response.headers.get("Content-Disposition") ?? "";
  const name = decodeURIComponent(disposition.split("''")[1] ?? "photo");
  return { blob: await response.blob(), name, notices: notices(response) };
}

export const zip = (ids, options) =>
  blob("/api/zip", { query: { ids: ids.join(","), ...options } });
export const saveIntoFolder = (id, origin, options) =>
  json(`/api/photos/${id}/save`, { method: "POST", query: { origin, ...options } });

/** Decodes a mask's file: {width, height, bits, notices}. */
export async function readMask(file) {
  const response = await call("/api/masks", { method: "POST", body: file });
  const [width, height] = response.headers.get("X-Size").split(",").map(Number);
  const bits = new Uint8Array(await response.arrayBuffer());
  return { width, height, bits, notices: notices(response) };
}
