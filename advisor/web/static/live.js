// Follows a run: server-sent events whose ids are those of the run's history.

const RETRY_MS = 5000;

// handlers: measurement(data, id), reload(), state("live" or "lost", problem)
export class LiveRun {
  constructor(base, handlers) {
    this.base = base;
    this.handlers = handlers;
    // A hidden page does not hold a connection (browsers allow six); it catches up when it is seen.
    document.addEventListener("visibilitychange", () => {
      if (document.hidden && this.source) {
        this.close();
        this.isPaused = true;
      } else if (!document.hidden && this.isPaused) {
        this.follow(this);
      }
    });
    addEventListener("pagehide", () => this.close());
    addEventListener("pageshow", (event) => event.persisted && this.handlers.reload());
  }

  follow({ lastId, shape, complete }) {
    this.close();
    Object.assign(this, { lastId, shape, complete, isPaused: document.hidden });
    if (this.isPaused) return;
    const query = new URLSearchParams({ after: lastId, shape, complete: complete ? "1" : "0" });
    const source = new EventSource(`${this.base}/events?${query}`);
    this.source = source;
    source.addEventListener("open", () => this.handlers.state("live", ""));
    source.addEventListener("measurement", (event) => {
      this.lastId = event.lastEventId;
      this.handlers.measurement(JSON.parse(event.data), event.lastEventId);
    });
    source.addEventListener("problem", (event) => {
      const { problem } = JSON.parse(event.data);
      this.handlers.state(problem ? "lost" : "live", problem);
    });
    source.addEventListener("reload", () => {
      this.close();
      this.handlers.reload();
    });
    source.addEventListener("error", () => {
      this.handlers.state("lost", "");
      // After an error status the browser gives up; after a lost connection it tries by itself.
      if (source.readyState === EventSource.CLOSED && this.source === source) {
        this.timer = setTimeout(() => this.follow(this), RETRY_MS);
      }
    });
  }

  close() {
    clearTimeout(this.timer);
    this.source?.close();
    this.source = null;
  }
}
