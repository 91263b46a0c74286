// Follows a run: server-sent events whose ids are those of the run's history.

const RETRY_MS = 5000;

// handlers: measurement(data), reload(), state("live" or "lost", problem)
export class LiveRun {
  constructor(base, handlers) {
    this.base = base;
    this.handlers = handlers;
    document.addEventListener("visibilitychange", () => this.connect());
    addEventListener("pagehide", () => this.close());
    addEventListener("pageshow", (event) => event.persisted && handlers.reload());
  }

  // Follows the run from what the page has of it, whose last_id moves with each measurement.
  follow(curves) {
    this.curves = curves;
    this.connect();
  }

  connect() {
    this.close();
    // A hidden page does not hold a connection (browsers allow six); it catches up when it is seen.
    if (document.hidden || !this.curves) return;
    const { last_id: after, shape, complete } = this.curves;
    const query = new URLSearchParams({ after, shape, complete: complete ? "1" : "0" });
    const source = new EventSource(`${this.base}/events?${query}`);
    this.source = source;
    source.onopen = () => this.handlers.state("live", "");
    source.addEventListener("measurement", (event) => {
      this.curves.last_id = event.lastEventId;
      this.handlers.measurement(JSON.parse(event.data));
    });
    source.addEventListener("problem", (event) => {
      const { problem } = JSON.parse(event.data);
      this.handlers.state(problem ? "lost" : "live", problem);
    });
    source.addEventListener("reload", () => {
      this.close();
      this.handlers.reload();
    });
    source.onerror = () => {
      this.handlers.state("lost", "");
      // After an error status the browser gives up; after a lost connection it tries by itself.
      if (source.readyState !== EventSource.CLOSED) return;
      this.timer = setTimeout(() => this.connect(), RETRY_MS);
    };
  }

  close() {
    clearTimeout(this.timer);
    this.source?.close();
  }
}
