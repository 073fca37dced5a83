//! eureka.
