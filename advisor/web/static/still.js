// Charts whose data are part of the page: those of profiles and comparisons.
import { drawCharts } from "./chart.js";
import { loadParts } from "./dom.js";

drawCharts(document);
loadParts();
